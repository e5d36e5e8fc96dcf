/* A crowd that does nothing: many registered clients and subscriptions over one connection to NATS.
 *
 *   crowd --port P [options]
 *
 * Options: --cluster ID  --client PREFIX  --clients C  --channel NAME  --channels N  --subscriptions S
 *          --durable PREFIX  --window W (requests outstanding)  --timeout SECONDS (without any answer)
 * Registers clients PREFIX-0 to PREFIX-(C-1) and S subscriptions to the new messages of channels NAME.0 to NAME.(N-1), so
 * that every client has each channel before one has it twice. With --durable they are durables with a name each. Then it
 * prints "ready" and answers heartbeats until a line comes on standard input, closes all clients (durables go offline)
 * and prints one line of JSON. It acks nothing. Exit status: 0, 1 = a request was refused, 2 = could not run.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

struct options {
    const char *cluster, *client, *channel, *durable;
    int port;
    long clients, channels, subscriptions, window, timeout_s;
};

enum request { REQUEST_CONNECT, REQUEST_SUBSCRIBE, REQUEST_CLOSE };

static const int ERROR_FIELD[] = {[REQUEST_CONNECT] = 5, [REQUEST_SUBSCRIBE] = 3, [REQUEST_CLOSE] = 1};

static void client_name(const struct options *options, long client, char *name, size_t capacity)
{
    snprintf(name, capacity, "%s-%ld", options->client, client);
}

/* Encodes request number `number` of its kind. */
static void encode(const struct options *options, const struct session *session, enum request kind, long number,
                   struct buffer *message)
{
    char name[SUBJECT_BYTES], text[SUBJECT_BYTES];
    client_name(options, kind == REQUEST_SUBSCRIBE ? number % options->clients : number, name, sizeof name);
    switch (kind) {
    case REQUEST_CONNECT: {
        char beat[32];
        snprintf(text, sizeof text, "%.14s%08ld", session->identity, number);
        snprintf(beat, sizeof beat, "%ld", number);
        session_connect_request(session, message, name, text, beat);
        break;
    }
    case REQUEST_SUBSCRIBE:
        proto_text(message, 1, name);
        snprintf(text, sizeof text, "%s.%ld", options->channel, number / options->clients % options->channels);
        proto_text(message, 2, text);
        snprintf(text, sizeof text, "_INBOX.%s.data.%ld", session->identity, number);
        proto_text(message, 4, text);
        proto_varint(message, 5, 1024);
        proto_varint(message, 6, 30);
        if (*options->durable) {
            snprintf(text, sizeof text, "%s-%ld", options->durable, number);
            proto_text(message, 7, text);
        }
        break;
    case REQUEST_CLOSE:
        proto_text(message, 1, name);
    }
}

/* Takes every frame that is here; returns how many of them are answers. Errors in answers are counted. */
static long take_answers(struct session *session, enum request kind)
{
    struct frame frame;
    long answers = 0;
    while (wire_next(&session->wire, &frame) != FRAME_INCOMPLETE) {
        if (frame.kind != FRAME_MESSAGE || frame.sid != SID_ANSWER) {
            session_handle_other(session, &frame);
            continue;
        }
        struct proto_field field;
        for (size_t at = 0; proto_next(frame.data, frame.data_length, &at, &field);)
            if (field.number == ERROR_FIELD[kind] && field.length)
                session_count_error(session, field.bytes, field.length);
        answers++;
    }
    return answers;
}

/* Sends requests `first` to `end - 1` of one kind with up to `window` outstanding, and waits for all answers. */
static void request_all(const struct options *options, struct session *session, enum request kind, long first, long end)
{
    char reply[64], discover[SUBJECT_BYTES];
    const char *subject = kind == REQUEST_SUBSCRIBE ? session->subscribe_subject : session->close_subject;
    snprintf(reply, sizeof reply, "_INBOX.%s.answer", session->identity);
    if (kind == REQUEST_CONNECT) {
        snprintf(discover, sizeof discover, "_STAN.discover.%s", options->cluster);
        subject = discover;
    }
    struct buffer message = {0};
    long sent = first, answered = first;
    int64_t progress_ns = now_ns();
    while (answered < end) {
        for (; sent < end && sent - answered < options->window; sent++) {
            message.length = 0;
            encode(options, session, kind, sent, &message);
            wire_publish(&session->wire, subject, reply, &message);
        }
        wire_pump(&session->wire, 100);
        long answers = take_answers(session, kind);
        if (answers)
            progress_ns = now_ns();
        answered += answers;
        if (now_ns() - progress_ns > options->timeout_s * 1000000000)
            fail(subject, "no answer in time");
    }
    free(message.bytes);
}

static void idle(struct session *session)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    puts("ready");
    fflush(stdout);
    while (poll(&input, 1, 0) == 0) {
        wire_pump(&session->wire, 100);
        take_answers(session, REQUEST_CLOSE);
    }
}

static void parse_options(int count, char **arguments, struct options *options)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"cluster", 1, 0, 'c'},  {"client", 1, 0, 'i'},        {"clients", 1, 0, 'I'},
        {"channel", 1, 0, 'n'}, {"channels", 1, 0, 'C'}, {"subscriptions", 1, 0, 'k'}, {"durable", 1, 0, 'd'},
        {"window", 1, 0, 'w'},  {"timeout", 1, 0, 't'},  {0, 0, 0, 0}};
    *options = (struct options){.cluster = "test-cluster", .client = "crowd", .channel = "crowd", .durable = "",
                                .clients = 1, .channels = 1, .window = 512, .timeout_s = 30};
    for (int choice; (choice = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (choice) {
        case 'p': options->port = (int)number_option(optarg, "--port"); break;
        case 'c': options->cluster = optarg; break;
        case 'i': options->client = optarg; break;
        case 'I': options->clients = number_option(optarg, "--clients"); break;
        case 'n': options->channel = optarg; break;
        case 'C': options->channels = number_option(optarg, "--channels"); break;
        case 'k': options->subscriptions = number_option(optarg, "--subscriptions"); break;
        case 'd': options->durable = optarg; break;
        case 'w': options->window = number_option(optarg, "--window"); break;
        case 't': options->timeout_s = number_option(optarg, "--timeout"); break;
        default: fail("options", "see the head of crowd.c");
        }
    }
    if (optind != count || !options->port || !options->clients || !options->channels || !options->window)
        fail("usage", "crowd --port P [options]; --clients, --channels and --window at least 1");
}

int main(int count, char **arguments)
{
    struct options options;
    struct session session = {0};
    char first[SUBJECT_BYTES];
    parse_options(count, arguments, &options);
    session_open(&session, options.port, options.cluster, options.client, options.timeout_s);
    buffer_format(&session.wire.out, "SUB _INBOX.%s.data.* %d\r\n", session.identity, SID_DELIVERY);
    client_name(&options, 0, first, sizeof first);
    int64_t start_ns = now_ns();
    session_register(&session, first);
    request_all(&options, &session, REQUEST_CONNECT, 1, options.clients);
    request_all(&options, &session, REQUEST_SUBSCRIBE, 0, options.subscriptions);
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    idle(&session);
    request_all(&options, &session, REQUEST_CLOSE, 0, options.clients);
    printf("{\"clients\":%ld,\"subscriptions\":%ld,\"seconds\":%.6f,\"heartbeats\":%ld,\"errors\":", options.clients,
           options.subscriptions, seconds, session.heartbeats);
    session_print_errors(&session);
    puts("}");
    return session.error_total > 0;
}
