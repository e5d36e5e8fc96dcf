/* The NATS text protocol and the few protobuf fields of STAN, for the load generator and the trivial responder. */
#ifndef WIRE_H
#define WIRE_H

#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *bytes;
    size_t length;
    size_t capacity;
};

enum frame_kind { FRAME_INCOMPLETE, FRAME_MESSAGE, FRAME_PING, FRAME_PONG, FRAME_ERROR, FRAME_OTHER };

/* One parsed frame; its pointers are valid until the next wire_pump(). */
struct frame {
    enum frame_kind kind;
    const char *line;
    size_t line_length;
    long sid;
    const char *reply;
    size_t reply_length;
    const char *data;
    size_t data_length;
};

struct wire {
    int fd;
    struct buffer in;
    size_t in_position;
    struct buffer out;
    size_t out_position;
};

int64_t now_ns(void);
/* Prints the reason and ends the program with status 2: a benchmark with a failed call measures nothing. */
void fail(const char *what, const char *detail);

void buffer_add(struct buffer *buffer, const void *bytes, size_t length);
void buffer_format(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Connects to a NATS server on the loopback interface; the socket does not block. */
void wire_connect(struct wire *wire, int port, const char *name);
/* Writes what waits, waits up to timeout_ms for the socket, reads once. Ends the program if the server hangs up. */
void wire_pump(struct wire *wire, int timeout_ms);
/* Takes the next whole frame out of what was read; answers PINGs itself. */
enum frame_kind wire_next(struct wire *wire, struct frame *frame);
size_t wire_unsent(const struct wire *wire);
void wire_publish(struct wire *wire, const char *subject, const char *reply, const struct buffer *payload);

void proto_varint(struct buffer *message, int field, uint64_t value);
void proto_bytes(struct buffer *message, int field, const void *bytes, size_t length);
void proto_text(struct buffer *message, int field, const char *text);

struct proto_field {
    int number;
    uint64_t value;     /* of a varint field */
    const char *bytes;  /* of a length-delimited field, else NULL */
    size_t length;
};
/* Reads the field at *position and moves on; 0 at the end, fails on bytes that are no protobuf. */
int proto_next(const char *data, size_t length, size_t *position, struct proto_field *field);

#endif
