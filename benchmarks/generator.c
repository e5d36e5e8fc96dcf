/* Load generator: a registered STAN client on a raw socket that parses and counts every answer.
 *
 *   generator pub  --port P [options]   N messages with up to W outstanding
 *   generator sync --port P [options]   the same with one outstanding, and the latency of each
 *   generator sub  --port P [options]   subscribes, acks every message, ends after N different ones
 *
 * Options: --cluster ID  --client ID  --channel NAME  --count N  --size BYTES  --window W  --max-in-flight M
 *          --ack-wait SECONDS  --start new|first  --no-ack  --barrier  --timeout SECONDS (without any answer)
 * With --barrier it prints "ready" when it is registered (subscribed) and starts when a line comes on standard input.
 * The result is one line of JSON on standard output. Exit status: 0, 1 = errors or timeout, 2 = could not run.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wire.h"

enum { SID_PUBACK = 1, SID_HEARTBEAT, SID_ANSWER, SID_DELIVERY };
enum { GUID_LENGTH = 22, FILL_BYTES = 256 * 1024, ERROR_TEXTS = 16 };

struct options {
    const char *mode, *cluster, *client, *channel, *start;
    int port, barrier, no_ack;
    long count, size, window, max_in_flight, ack_wait_s, timeout_s;
};

struct error_count {
    char text[256];
    long count;
};

struct session {
    const struct options *options;
    struct wire wire;
    char identity[GUID_LENGTH + 1];
    char publish_prefix[512], subscribe_subject[512], close_subject[512];
    struct error_count errors[ERROR_TEXTS];
    long error_kinds, error_total, unexpected;
    long acked, received, different, redelivered;
    int timed_out;
    int64_t start_ns, end_ns;
};

static void copy_text(char *target, size_t capacity, const char *bytes, size_t length)
{
    if (length >= capacity)
        length = capacity - 1;
    memcpy(target, bytes, length);
    target[length] = 0;
}

static void count_error(struct session *session, const char *bytes, size_t length)
{
    char text[sizeof session->errors[0].text];
    copy_text(text, sizeof text, bytes, length);
    session->error_total++;
    for (long i = 0; i < session->error_kinds; i++)
        if (!strcmp(session->errors[i].text, text)) {
            session->errors[i].count++;
            return;
        }
    if (session->error_kinds < ERROR_TEXTS) {
        strcpy(session->errors[session->error_kinds].text, text);
        session->errors[session->error_kinds++].count = 1;
    }
}

/* What every mode does with a frame that is not its own business. */
static void handle_other(struct session *session, const struct frame *frame)
{
    if (frame->kind == FRAME_ERROR)
        count_error(session, frame->line, frame->line_length);
    else if (frame->kind == FRAME_MESSAGE && frame->sid == SID_HEARTBEAT && frame->reply)
        buffer_format(&session->wire.out, "PUB %.*s 0\r\n\r\n", (int)frame->reply_length, frame->reply);
}

/* Waits for a frame of `kind` (a message: of `sid`); the frame stays valid until the next pump. */
static void await_frame(struct session *session, enum frame_kind kind, long sid, struct frame *frame, const char *what)
{
    int64_t deadline = now_ns() + session->options->timeout_s * 1000000000;
    for (;;) {
        while (wire_next(&session->wire, frame) != FRAME_INCOMPLETE) {
            if (frame->kind == kind && (kind != FRAME_MESSAGE || frame->sid == sid))
                return;
            handle_other(session, frame);
        }
        if (now_ns() > deadline)
            fail(what, "no answer in time");
        wire_pump(&session->wire, 100);
    }
}

static void request(struct session *session, const char *subject, const struct buffer *payload, struct frame *answer)
{
    char reply[64];
    snprintf(reply, sizeof reply, "_INBOX.%s.answer", session->identity);
    wire_publish(&session->wire, subject, reply, payload);
    await_frame(session, FRAME_MESSAGE, SID_ANSWER, answer, subject);
}

static void register_client(struct session *session)
{
    const struct options *options = session->options;
    snprintf(session->identity, sizeof session->identity, "%08x%014" PRIx64, (unsigned)getpid(),
             (uint64_t)now_ns() & 0xffffffffffffff);
    wire_connect(&session->wire, options->port, options->client);
    const char *id = session->identity;
    buffer_format(&session->wire.out,
                  "SUB _STAN.acks.%s %d\r\nSUB _INBOX.%s.beat %d\r\nSUB _INBOX.%s.answer %d\r\nSUB _INBOX.%s.data %d\r\n",
                  id, SID_PUBACK, id, SID_HEARTBEAT, id, SID_ANSWER, id, SID_DELIVERY);
    struct buffer message = {0};
    char heartbeat[64], subject[512];
    snprintf(heartbeat, sizeof heartbeat, "_INBOX.%s.beat", id);
    snprintf(subject, sizeof subject, "_STAN.discover.%s", options->cluster);
    proto_text(&message, 1, options->client);
    proto_text(&message, 2, heartbeat);
    proto_varint(&message, 3, 1);
    proto_text(&message, 4, id);
    proto_varint(&message, 5, 5);
    proto_varint(&message, 6, 88);
    struct frame answer;
    request(session, subject, &message, &answer);
    struct proto_field field;
    for (size_t at = 0; proto_next(answer.data, answer.data_length, &at, &field);) {
        if (field.number == 1)
            copy_text(session->publish_prefix, sizeof session->publish_prefix, field.bytes, field.length);
        if (field.number == 2)
            copy_text(session->subscribe_subject, sizeof session->subscribe_subject, field.bytes, field.length);
        if (field.number == 4)
            copy_text(session->close_subject, sizeof session->close_subject, field.bytes, field.length);
        if (field.number == 5 && field.length) {
            copy_text(subject, sizeof subject, field.bytes, field.length);
            fail("connect refused", subject);
        }
    }
    free(message.bytes);
}

static void close_client(struct session *session)
{
    struct buffer message = {0};
    proto_text(&message, 1, session->options->client);
    struct frame answer;
    request(session, session->close_subject, &message, &answer);
    struct proto_field field;
    for (size_t at = 0; proto_next(answer.data, answer.data_length, &at, &field);)
        if (field.number == 1)
            count_error(session, field.bytes, field.length);
    free(message.bytes);
}

static void pass_barrier(const struct session *session)
{
    char line[64];
    if (!session->options->barrier)
        return;
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        fail("barrier", "standard input was closed");
}

/* ---- publishing ---- */

/* The encoded publish frame; the guid's digits are written over for each message. */
static size_t publish_template(const struct session *session, struct buffer *frame)
{
    const struct options *options = session->options;
    struct buffer message = {0};
    char guid[GUID_LENGTH + 1];
    memset(guid, '0', GUID_LENGTH);
    guid[GUID_LENGTH] = 0;
    char *data = malloc((size_t)options->size + 1);
    memset(data, 'x', (size_t)options->size);
    proto_text(&message, 1, options->client);
    proto_text(&message, 2, guid);
    size_t guid_offset = message.length - GUID_LENGTH;
    proto_text(&message, 3, options->channel);
    if (options->size)
        proto_bytes(&message, 5, data, (size_t)options->size);
    proto_text(&message, 6, session->identity);
    buffer_format(frame, "PUB %s.%s _STAN.acks.%s %zu\r\n", session->publish_prefix, options->channel,
                  session->identity, message.length);
    guid_offset += frame->length;
    buffer_add(frame, message.bytes, message.length);
    buffer_add(frame, "\r\n", 2);
    free(message.bytes);
    free(data);
    return guid_offset;
}

static void add_publish(struct buffer *out, const struct buffer *template, size_t guid_offset, long number)
{
    buffer_add(out, template->bytes, template->length);
    char *digit = out->bytes + out->length - template->length + guid_offset + GUID_LENGTH;
    for (; number; number /= 10)
        *--digit = (char)('0' + number % 10);
}

/* Number of the publish that a PubAck answers, -1 if the guid is none of ours. */
static long acked_number(struct session *session, const struct frame *frame)
{
    struct proto_field field;
    long number = -1;
    for (size_t at = 0; proto_next(frame->data, frame->data_length, &at, &field);) {
        if (field.number == 1 && field.length == GUID_LENGTH) {
            number = 0;
            for (size_t i = 0; i < field.length; i++) {
                if (field.bytes[i] < '0' || field.bytes[i] > '9')
                    return -1;
                number = number * 10 + (field.bytes[i] - '0');
            }
        }
        if (field.number == 2 && field.length)
            count_error(session, field.bytes, field.length);
    }
    return number;
}

static void publish(struct session *session, int64_t *latencies_ns)
{
    const struct options *options = session->options;
    struct buffer template = {0};
    size_t guid_offset = publish_template(session, &template);
    unsigned char *answered = calloc((size_t)options->count + 1, 1);
    long sent = 0;
    pass_barrier(session);
    session->start_ns = now_ns();
    int64_t progress_ns = session->start_ns, sent_ns = 0;
    while (session->acked < options->count) {
        while (sent < options->count && sent - session->acked < options->window &&
               wire_unsent(&session->wire) < FILL_BYTES) {
            sent_ns = now_ns();
            add_publish(&session->wire.out, &template, guid_offset, sent++);
        }
        int may_send = sent < options->count && sent - session->acked < options->window;
        wire_pump(&session->wire, may_send && wire_unsent(&session->wire) < FILL_BYTES ? 0 : 100);
        struct frame frame;
        while (wire_next(&session->wire, &frame) != FRAME_INCOMPLETE) {
            if (frame.kind != FRAME_MESSAGE || frame.sid != SID_PUBACK) {
                handle_other(session, &frame);
                continue;
            }
            long number = acked_number(session, &frame);
            if (number < 0 || number >= sent || answered[number]) {
                session->unexpected++;
                continue;
            }
            answered[number] = 1;
            progress_ns = now_ns();
            if (latencies_ns)
                latencies_ns[session->acked] = progress_ns - sent_ns;
            session->acked++;
        }
        if (now_ns() - progress_ns > options->timeout_s * 1000000000) {
            session->timed_out = 1;
            break;
        }
    }
    session->end_ns = now_ns();
    free(answered);
    free(template.bytes);
}

/* ---- subscribing ---- */

static void subscribe(struct session *session, char *ack_inbox, size_t capacity)
{
    const struct options *options = session->options;
    struct buffer message = {0};
    char inbox[64];
    snprintf(inbox, sizeof inbox, "_INBOX.%s.data", session->identity);
    proto_text(&message, 1, options->client);
    proto_text(&message, 2, options->channel);
    proto_text(&message, 4, inbox);
    proto_varint(&message, 5, (uint64_t)options->max_in_flight);
    proto_varint(&message, 6, (uint64_t)options->ack_wait_s);
    if (!strcmp(options->start, "first"))
        proto_varint(&message, 10, 4);
    struct frame answer;
    request(session, session->subscribe_subject, &message, &answer);
    *ack_inbox = 0;
    struct proto_field field;
    for (size_t at = 0; proto_next(answer.data, answer.data_length, &at, &field);) {
        if (field.number == 2)
            copy_text(ack_inbox, capacity, field.bytes, field.length);
        if (field.number == 3 && field.length) {
            copy_text(ack_inbox, capacity, field.bytes, field.length);
            fail("subscribe refused", ack_inbox);
        }
    }
    free(message.bytes);
}

/* Notes a sequence; 1 if it is seen for the first time. Grows with the distance to the first sequence seen. */
static int first_sight(unsigned char **seen, uint64_t *capacity, uint64_t *base, uint64_t sequence)
{
    if (!*base)
        *base = sequence;
    if (sequence < *base)
        fail("delivery", "a sequence below the first one received");
    uint64_t offset = sequence - *base;
    if (offset >= *capacity) {
        uint64_t grown = (offset + 1) * 2;
        *seen = realloc(*seen, grown);
        memset(*seen + *capacity, 0, grown - *capacity);
        *capacity = grown;
    }
    if ((*seen)[offset])
        return 0;
    return (*seen)[offset] = 1;
}

static void add_ack(struct session *session, const char *ack_inbox, const struct buffer *ack_head, uint64_t sequence)
{
    char sequence_bytes[16];
    struct buffer number = {.bytes = sequence_bytes, .capacity = sizeof sequence_bytes};
    proto_varint(&number, 2, sequence);
    struct buffer *out = &session->wire.out;
    buffer_format(out, "PUB %s %zu\r\n", ack_inbox, ack_head->length + number.length);
    buffer_add(out, ack_head->bytes, ack_head->length);
    buffer_add(out, number.bytes, number.length);
    buffer_add(out, "\r\n", 2);
}

static void consume(struct session *session)
{
    const struct options *options = session->options;
    char ack_inbox[512];
    struct buffer ack_head = {0};
    unsigned char *seen = NULL;
    uint64_t capacity = 0, base = 0;
    subscribe(session, ack_inbox, sizeof ack_inbox);
    proto_text(&ack_head, 1, options->channel);
    pass_barrier(session);
    session->start_ns = now_ns();
    int64_t progress_ns = session->start_ns;
    while (session->different < options->count) {
        wire_pump(&session->wire, 100);
        struct frame frame;
        while (wire_next(&session->wire, &frame) != FRAME_INCOMPLETE) {
            if (frame.kind != FRAME_MESSAGE || frame.sid != SID_DELIVERY) {
                handle_other(session, &frame);
                continue;
            }
            struct proto_field field;
            uint64_t sequence = 0;
            for (size_t at = 0; proto_next(frame.data, frame.data_length, &at, &field);) {
                if (field.number == 1)
                    sequence = field.value;
                if (field.number == 6 && field.value)
                    session->redelivered++;
            }
            session->received++;
            session->different += first_sight(&seen, &capacity, &base, sequence);
            if (!options->no_ack)
                add_ack(session, ack_inbox, &ack_head, sequence);
            progress_ns = now_ns();
        }
        if (now_ns() - progress_ns > options->timeout_s * 1000000000) {
            session->timed_out = 1;
            break;
        }
    }
    struct frame pong;
    buffer_add(&session->wire.out, "PING\r\n", 6);
    await_frame(session, FRAME_PONG, 0, &pong, "flush of the acks");
    session->end_ns = now_ns();
    if (options->no_ack)
        pass_barrier(session); /* keeps the messages unacked until the caller has looked */
    free(seen);
    free(ack_head.bytes);
}

/* ---- result ---- */

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else
            putchar((unsigned char)*text < 32 ? ' ' : *text);
    putchar('"');
}

static void report(const struct session *session, int64_t *latencies_ns)
{
    const struct options *options = session->options;
    double seconds = (double)(session->end_ns - session->start_ns) / 1e9;
    long done = strcmp(options->mode, "sub") ? session->acked : session->different;
    printf("{\"mode\":\"%s\",\"count\":%ld,\"size\":%ld,\"window\":%ld,\"done\":%ld,\"seconds\":%.6f,"
           "\"per_second\":%.1f,\"start_ns\":%" PRId64 ",\"end_ns\":%" PRId64 ",\"acked\":%ld,\"received\":%ld,"
           "\"redelivered\":%ld,\"unexpected\":%ld,\"timed_out\":%s,\"errors\":{",
           options->mode, options->count, options->size, options->window, done, seconds,
           seconds > 0 ? (double)done / seconds : 0.0, session->start_ns, session->end_ns, session->acked,
           session->received, session->redelivered, session->unexpected, session->timed_out ? "true" : "false");
    for (long i = 0; i < session->error_kinds; i++) {
        printf(i ? "," : "");
        print_text(session->errors[i].text);
        printf(":%ld", session->errors[i].count);
    }
    printf("}");
    if (latencies_ns && session->acked) {
        long n = session->acked;
        qsort(latencies_ns, (size_t)n, sizeof *latencies_ns, ascending);
        printf(",\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f", (double)latencies_ns[n / 2] / 1e3,
               (double)latencies_ns[n * 9 / 10] / 1e3, (double)latencies_ns[n * 99 / 100] / 1e3,
               (double)latencies_ns[n - 1] / 1e3);
    }
    puts("}");
}

static long number(const char *text, const char *name)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 0)
        fail(name, "a number of 0 or more is needed");
    return value;
}

static void parse_options(int count, char **arguments, struct options *options)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"cluster", 1, 0, 'c'},       {"client", 1, 0, 'i'},   {"channel", 1, 0, 'n'},
        {"count", 1, 0, 'N'},   {"size", 1, 0, 's'},          {"window", 1, 0, 'w'},   {"max-in-flight", 1, 0, 'm'},
        {"start", 1, 0, 'f'},   {"ack-wait", 1, 0, 'a'},      {"no-ack", 0, 0, 'x'},   {"barrier", 0, 0, 'b'},
        {"timeout", 1, 0, 't'}, {0, 0, 0, 0}};
    *options = (struct options){.cluster = "test-cluster", .client = "generator", .channel = "bench", .start = "new",
                                .count = 100000, .size = 128, .window = 16384, .max_in_flight = 1024,
                                .ack_wait_s = 30, .timeout_s = 30};
    for (int choice; (choice = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (choice) {
        case 'p': options->port = (int)number(optarg, "--port"); break;
        case 'c': options->cluster = optarg; break;
        case 'i': options->client = optarg; break;
        case 'n': options->channel = optarg; break;
        case 'N': options->count = number(optarg, "--count"); break;
        case 's': options->size = number(optarg, "--size"); break;
        case 'w': options->window = number(optarg, "--window"); break;
        case 'm': options->max_in_flight = number(optarg, "--max-in-flight"); break;
        case 'f': options->start = optarg; break;
        case 'a': options->ack_wait_s = number(optarg, "--ack-wait"); break;
        case 'x': options->no_ack = 1; break;
        case 'b': options->barrier = 1; break;
        case 't': options->timeout_s = number(optarg, "--timeout"); break;
        default: fail("options", "see the head of generator.c");
        }
    }
    if (optind != count - 1 || !options->port || !options->window || !options->count)
        fail("usage", "generator pub|sync|sub --port P [options]; --window and --count at least 1");
    options->mode = arguments[optind];
    if (strcmp(options->mode, "pub") && strcmp(options->mode, "sync") && strcmp(options->mode, "sub"))
        fail("mode", "pub, sync or sub");
    if (strcmp(options->start, "new") && strcmp(options->start, "first"))
        fail("--start", "new or first");
    if (!strcmp(options->mode, "sync"))
        options->window = 1;
}

int main(int count, char **arguments)
{
    struct options options;
    parse_options(count, arguments, &options);
    struct session session = {.options = &options};
    int64_t *latencies_ns = NULL;
    register_client(&session);
    if (!strcmp(options.mode, "sub")) {
        consume(&session);
    } else {
        if (!strcmp(options.mode, "sync"))
            latencies_ns = calloc((size_t)options.count, sizeof *latencies_ns);
        publish(&session, latencies_ns);
    }
    if (!session.timed_out)
        close_client(&session);
    report(&session, latencies_ns);
    return session.timed_out || session.error_total || session.unexpected;
}
