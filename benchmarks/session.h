/* A connection of a load program to NATS and the STAN requests on it: registering, closing, counted errors, the barrier. */
#ifndef SESSION_H
#define SESSION_H

#include <stdint.h>

#include "wire.h"

enum { IDENTITY_LENGTH = 22, SUBJECT_BYTES = 512, ERROR_TEXTS = 16 };
enum { SID_PUBACK = 1, SID_HEARTBEAT, SID_ANSWER, SID_DELIVERY };

struct error_count {
    char text[256];
    long count;
};

struct session {
    struct wire wire;
    const char *cluster;
    long timeout_s;
    char identity[IDENTITY_LENGTH + 1]; /* names the inboxes, and is the connection id of the first client */
    char publish_prefix[SUBJECT_BYTES], subscribe_subject[SUBJECT_BYTES], close_subject[SUBJECT_BYTES];
    struct error_count errors[ERROR_TEXTS];
    long error_kinds, error_total, heartbeats;
};

void copy_text(char *target, size_t capacity, const char *bytes, size_t length);
/* A number of 0 or more out of an option's text; ends the program otherwise. */
long number_option(const char *text, const char *name);

/* Connects to NATS and listens for PubAcks, heartbeats and answers. */
void session_open(struct session *session, int port, const char *cluster, const char *name, long timeout_s);
/* The ConnectRequest of a client whose heartbeats come to this session. */
void session_connect_request(const struct session *session, struct buffer *message, const char *client,
                             const char *connection_id, const char *beat);
/* Registers the client that goes by the session's identity, and learns the subjects; ends the program if it is refused. */
void session_register(struct session *session, const char *client);
void session_close(struct session *session, const char *client);
/* Sends a request and waits for its answer, which stays valid until the next wire_pump(). */
void session_request(struct session *session, const char *subject, const struct buffer *payload, struct frame *answer);
/* Waits for a frame of `kind` (a message: of `sid`). */
void session_await(struct session *session, enum frame_kind kind, long sid, struct frame *frame, const char *what);
/* What every mode does with a frame that is not its own business: answers heartbeats, counts errors of NATS. */
void session_handle_other(struct session *session, const struct frame *frame);
void session_count_error(struct session *session, const char *bytes, size_t length);
/* Prints "ready" and waits for a line on standard input. */
void session_barrier(void);
/* The errors by text as a JSON object. */
void session_print_errors(const struct session *session);

#endif
