/* Load generator: a registered STAN client on a raw socket that parses and counts every answer.
 *
 *   generator pub  --port P [options]   N messages with up to W outstanding, to C channels in turn
 *   generator sync --port P [options]   the same with one outstanding, and the latency of each
 *   generator sub  --port P [options]   K subscriptions that ack every message; ends after N different ones for each of
 *                                       them, or with --group, which they are members of then, for all together
 *
 * Options: --cluster ID  --client ID  --channel NAME  --channels C  --count N  --size BYTES  --window W
 *          --subscriptions K  --group NAME  --max-in-flight M  --ack-wait SECONDS  --start new|first  --no-ack
 *          --barrier  --timeout SECONDS (without any answer)
 * With --barrier it prints "ready" when it is registered (subscribed) and starts when a line comes on standard input.
 * With --channels above 1 the channels are NAME.0, NAME.1 and so on.
 * The result is one line of JSON on standard output. Exit status: 0, 1 = errors or timeout, 2 = could not run.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "session.h"

enum { FILL_BYTES = 256 * 1024 };

struct options {
    const char *mode, *cluster, *client, *channel, *start, *group;
    int port, barrier, no_ack;
    long count, size, window, max_in_flight, ack_wait_s, timeout_s, channels, subscriptions;
};

struct tally {
    long acked, received, different, redelivered, unexpected;
    long least, most; /* messages of the subscription that got the fewest and the most */
    int timed_out;
    int64_t start_ns, end_ns, cpu_ns;
};

static int64_t used_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static void begin(const struct options *options, struct tally *tally)
{
    if (options->barrier)
        session_barrier();
    tally->start_ns = now_ns();
    tally->cpu_ns = -used_ns();
}

static void end(struct tally *tally)
{
    tally->end_ns = now_ns();
    tally->cpu_ns += used_ns();
}

/* ---- publishing ---- */

/* Encoded publish frames, one for each channel; the guid's digits are written over for each message. */
struct template {
    struct buffer frame;
    size_t guid_offset;
};

static void make_template(const struct options *options, const struct session *session, long channel,
                          struct template *template)
{
    struct buffer message = {0};
    char guid[IDENTITY_LENGTH + 1], name[SUBJECT_BYTES];
    memset(guid, '0', IDENTITY_LENGTH);
    guid[IDENTITY_LENGTH] = 0;
    snprintf(name, sizeof name, options->channels > 1 ? "%s.%ld" : "%s", options->channel, channel);
    char *data = malloc((size_t)options->size + 1);
    memset(data, 'x', (size_t)options->size);
    proto_text(&message, 1, options->client);
    proto_text(&message, 2, guid);
    template->guid_offset = message.length - IDENTITY_LENGTH;
    proto_text(&message, 3, name);
    if (options->size)
        proto_bytes(&message, 5, data, (size_t)options->size);
    proto_text(&message, 6, session->identity);
    buffer_format(&template->frame, "PUB %s.%s _STAN.acks.%s %zu\r\n", session->publish_prefix, name, session->identity,
                  message.length);
    template->guid_offset += template->frame.length;
    buffer_add(&template->frame, message.bytes, message.length);
    buffer_add(&template->frame, "\r\n", 2);
    free(message.bytes);
    free(data);
}

static void add_publish(struct buffer *out, const struct template *template, long number)
{
    buffer_add(out, template->frame.bytes, template->frame.length);
    char *digit = out->bytes + out->length - template->frame.length + template->guid_offset + IDENTITY_LENGTH;
    for (; number; number /= 10)
        *--digit = (char)('0' + number % 10);
}

/* Number of the publish that a PubAck answers, -1 if the guid is none of ours. */
static long acked_number(struct session *session, const struct frame *frame)
{
    struct proto_field field;
    long number = -1;
    for (size_t at = 0; proto_next(frame->data, frame->data_length, &at, &field);) {
        if (field.number == 1 && field.length == IDENTITY_LENGTH) {
            number = 0;
            for (size_t i = 0; i < field.length; i++) {
                if (field.bytes[i] < '0' || field.bytes[i] > '9')
                    return -1;
                number = number * 10 + (field.bytes[i] - '0');
            }
        }
        if (field.number == 2 && field.length)
            session_count_error(session, field.bytes, field.length);
    }
    return number;
}

static void publish(const struct options *options, struct session *session, struct tally *tally, int64_t *latencies_ns)
{
    struct template *templates = calloc((size_t)options->channels, sizeof *templates);
    for (long channel = 0; channel < options->channels; channel++)
        make_template(options, session, channel, &templates[channel]);
    unsigned char *answered = calloc((size_t)options->count + 1, 1);
    long sent = 0;
    begin(options, tally);
    int64_t progress_ns = tally->start_ns, sent_ns = 0;
    while (tally->acked < options->count) {
        while (sent < options->count && sent - tally->acked < options->window &&
               wire_unsent(&session->wire) < FILL_BYTES) {
            sent_ns = now_ns();
            add_publish(&session->wire.out, &templates[sent % options->channels], sent);
            sent++;
        }
        int may_send = sent < options->count && sent - tally->acked < options->window;
        wire_pump(&session->wire, may_send && wire_unsent(&session->wire) < FILL_BYTES ? 0 : 100);
        struct frame frame;
        while (wire_next(&session->wire, &frame) != FRAME_INCOMPLETE) {
            if (frame.kind != FRAME_MESSAGE || frame.sid != SID_PUBACK) {
                session_handle_other(session, &frame);
                continue;
            }
            long number = acked_number(session, &frame);
            if (number < 0 || number >= sent || answered[number]) {
                tally->unexpected++;
                continue;
            }
            answered[number] = 1;
            progress_ns = now_ns();
            if (latencies_ns)
                latencies_ns[tally->acked] = progress_ns - sent_ns;
            tally->acked++;
        }
        if (now_ns() - progress_ns > options->timeout_s * 1000000000) {
            tally->timed_out = 1;
            break;
        }
    }
    end(tally);
    free(answered);
    for (long channel = 0; channel < options->channels; channel++)
        free(templates[channel].frame.bytes);
    free(templates);
}

/* ---- subscribing ---- */

/* Which sequences were seen. */
struct sightings {
    unsigned char *seen;
    uint64_t capacity, base;
};

struct subscription {
    struct buffer ack_start; /* "PUB <ack inbox> " */
    struct sightings own, *sightings;
    long received;
};

static void subscribe(const struct options *options, struct session *session, long number,
                      struct subscription *subscription)
{
    struct buffer message = {0};
    char inbox[96], text[SUBJECT_BYTES] = "";
    snprintf(inbox, sizeof inbox, "_INBOX.%s.data.%ld", session->identity, number);
    buffer_format(&session->wire.out, "SUB %s %ld\r\n", inbox, SID_DELIVERY + number);
    proto_text(&message, 1, options->client);
    proto_text(&message, 2, options->channel);
    if (*options->group)
        proto_text(&message, 3, options->group);
    proto_text(&message, 4, inbox);
    proto_varint(&message, 5, (uint64_t)options->max_in_flight);
    proto_varint(&message, 6, (uint64_t)options->ack_wait_s);
    if (!strcmp(options->start, "first"))
        proto_varint(&message, 10, 4);
    struct frame answer;
    session_request(session, session->subscribe_subject, &message, &answer);
    struct proto_field field;
    for (size_t at = 0; proto_next(answer.data, answer.data_length, &at, &field);) {
        if (field.number == 2)
            copy_text(text, sizeof text, field.bytes, field.length);
        if (field.number == 3 && field.length) {
            copy_text(text, sizeof text, field.bytes, field.length);
            fail("subscribe refused", text);
        }
    }
    buffer_format(&subscription->ack_start, "PUB %s ", text);
    free(message.bytes);
}

/* Notes a sequence; 1 if it is seen for the first time. Grows with the distance to the first sequence seen. */
static int first_sight(struct sightings *sightings, uint64_t sequence)
{
    if (!sightings->base)
        sightings->base = sequence;
    if (sequence < sightings->base)
        fail("delivery", "a sequence below the first one received");
    uint64_t offset = sequence - sightings->base;
    if (offset >= sightings->capacity) {
        uint64_t grown = (offset + 1) * 2;
        sightings->seen = realloc(sightings->seen, grown);
        memset(sightings->seen + sightings->capacity, 0, grown - sightings->capacity);
        sightings->capacity = grown;
    }
    if (sightings->seen[offset])
        return 0;
    return sightings->seen[offset] = 1;
}

/* `ack_head` is the encoded channel of every ack. */
static void add_ack(struct buffer *out, const struct subscription *subscription, const struct buffer *ack_head,
                    uint64_t sequence)
{
    char sequence_bytes[16], digits[24];
    struct buffer number = {.bytes = sequence_bytes, .capacity = sizeof sequence_bytes};
    proto_varint(&number, 2, sequence);
    char *digit = digits + sizeof digits;
    *--digit = '\n';
    *--digit = '\r';
    for (size_t size = ack_head->length + number.length; size; size /= 10)
        *--digit = (char)('0' + size % 10);
    buffer_add(out, subscription->ack_start.bytes, subscription->ack_start.length);
    buffer_add(out, digit, (size_t)(digits + sizeof digits - digit));
    buffer_add(out, ack_head->bytes, ack_head->length);
    buffer_add(out, number.bytes, number.length);
    buffer_add(out, "\r\n", 2);
}

static void receive(const struct options *options, struct session *session, struct tally *tally,
                    struct subscription *subscription, const struct buffer *ack_head, const struct frame *frame)
{
    struct proto_field field;
    uint64_t sequence = 0;
    for (size_t at = 0; proto_next(frame->data, frame->data_length, &at, &field);) {
        if (field.number == 1)
            sequence = field.value;
        if (field.number == 6 && field.value)
            tally->redelivered++;
    }
    tally->received++;
    subscription->received++;
    tally->different += first_sight(subscription->sightings, sequence);
    if (!options->no_ack)
        add_ack(&session->wire.out, subscription, ack_head, sequence);
}

static void consume(const struct options *options, struct session *session, struct tally *tally)
{
    struct buffer ack_head = {0};
    struct subscription *subscriptions = calloc((size_t)options->subscriptions, sizeof *subscriptions);
    for (long i = 0; i < options->subscriptions; i++) {
        subscribe(options, session, i, &subscriptions[i]);
        subscriptions[i].sightings = &subscriptions[*options->group ? 0 : i].own;
    }
    long wanted = options->count * (*options->group ? 1 : options->subscriptions);
    proto_text(&ack_head, 1, options->channel);
    begin(options, tally);
    int64_t progress_ns = tally->start_ns;
    while (tally->different < wanted) {
        wire_pump(&session->wire, 100);
        struct frame frame;
        while (wire_next(&session->wire, &frame) != FRAME_INCOMPLETE) {
            long number = frame.sid - SID_DELIVERY;
            if (frame.kind != FRAME_MESSAGE || number < 0 || number >= options->subscriptions) {
                session_handle_other(session, &frame);
                continue;
            }
            receive(options, session, tally, &subscriptions[number], &ack_head, &frame);
            progress_ns = now_ns();
        }
        if (now_ns() - progress_ns > options->timeout_s * 1000000000) {
            tally->timed_out = 1;
            break;
        }
    }
    struct frame pong;
    buffer_add(&session->wire.out, "PING\r\n", 6);
    session_await(session, FRAME_PONG, 0, &pong, "flush of the acks");
    end(tally);
    if (options->no_ack && options->barrier)
        session_barrier(); /* keeps the messages unacked until the caller has looked */
    tally->least = tally->most = subscriptions[0].received;
    for (long i = 0; i < options->subscriptions; i++) {
        tally->least = subscriptions[i].received < tally->least ? subscriptions[i].received : tally->least;
        tally->most = subscriptions[i].received > tally->most ? subscriptions[i].received : tally->most;
        free(subscriptions[i].ack_start.bytes);
        free(subscriptions[i].own.seen);
    }
    free(subscriptions);
    free(ack_head.bytes);
}

/* ---- result ---- */

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void report(const struct options *options, const struct session *session, const struct tally *tally,
                   int64_t *latencies_ns)
{
    double seconds = (double)(tally->end_ns - tally->start_ns) / 1e9;
    long done = strcmp(options->mode, "sub") ? tally->acked : tally->different;
    printf("{\"mode\":\"%s\",\"count\":%ld,\"size\":%ld,\"window\":%ld,\"done\":%ld,\"seconds\":%.6f,"
           "\"per_second\":%.1f,\"start_ns\":%" PRId64 ",\"end_ns\":%" PRId64 ",\"cpu_seconds\":%.6f,\"acked\":%ld,"
           "\"received\":%ld,\"different\":%ld,\"least\":%ld,\"most\":%ld,\"redelivered\":%ld,\"unexpected\":%ld,"
           "\"timed_out\":%s,\"errors\":",
           options->mode, options->count, options->size, options->window, done, seconds,
           seconds > 0 ? (double)done / seconds : 0.0, tally->start_ns, tally->end_ns, (double)tally->cpu_ns / 1e9,
           tally->acked, tally->received, tally->different, tally->least, tally->most, tally->redelivered,
           tally->unexpected, tally->timed_out ? "true" : "false");
    session_print_errors(session);
    if (latencies_ns && tally->acked) {
        long n = tally->acked;
        qsort(latencies_ns, (size_t)n, sizeof *latencies_ns, ascending);
        printf(",\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f", (double)latencies_ns[n / 2] / 1e3,
               (double)latencies_ns[n * 9 / 10] / 1e3, (double)latencies_ns[n * 99 / 100] / 1e3,
               (double)latencies_ns[n - 1] / 1e3);
    }
    puts("}");
}

static void parse_options(int count, char **arguments, struct options *options)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},     {"cluster", 1, 0, 'c'},       {"client", 1, 0, 'i'},  {"channel", 1, 0, 'n'},
        {"count", 1, 0, 'N'},    {"size", 1, 0, 's'},          {"window", 1, 0, 'w'},  {"max-in-flight", 1, 0, 'm'},
        {"start", 1, 0, 'f'},    {"ack-wait", 1, 0, 'a'},      {"no-ack", 0, 0, 'x'},  {"barrier", 0, 0, 'b'},
        {"timeout", 1, 0, 't'},  {"channels", 1, 0, 'C'},      {"group", 1, 0, 'g'},   {"subscriptions", 1, 0, 'k'},
        {0, 0, 0, 0}};
    *options = (struct options){.cluster = "test-cluster", .client = "generator", .channel = "bench", .start = "new",
                                .group = "", .count = 100000, .size = 128, .window = 16384, .max_in_flight = 1024,
                                .ack_wait_s = 30, .timeout_s = 30, .channels = 1, .subscriptions = 1};
    for (int choice; (choice = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (choice) {
        case 'p': options->port = (int)number_option(optarg, "--port"); break;
        case 'c': options->cluster = optarg; break;
        case 'i': options->client = optarg; break;
        case 'n': options->channel = optarg; break;
        case 'N': options->count = number_option(optarg, "--count"); break;
        case 's': options->size = number_option(optarg, "--size"); break;
        case 'w': options->window = number_option(optarg, "--window"); break;
        case 'm': options->max_in_flight = number_option(optarg, "--max-in-flight"); break;
        case 'f': options->start = optarg; break;
        case 'a': options->ack_wait_s = number_option(optarg, "--ack-wait"); break;
        case 'x': options->no_ack = 1; break;
        case 'b': options->barrier = 1; break;
        case 't': options->timeout_s = number_option(optarg, "--timeout"); break;
        case 'C': options->channels = number_option(optarg, "--channels"); break;
        case 'g': options->group = optarg; break;
        case 'k': options->subscriptions = number_option(optarg, "--subscriptions"); break;
        default: fail("options", "see the head of generator.c");
        }
    }
    if (optind != count - 1 || !options->port || !options->window || !options->count || !options->channels ||
        !options->subscriptions)
        fail("usage", "generator pub|sync|sub --port P [options]; counts at least 1");
    options->mode = arguments[optind];
    if (strcmp(options->mode, "pub") && strcmp(options->mode, "sync") && strcmp(options->mode, "sub"))
        fail("mode", "pub, sync or sub");
    if (strcmp(options->start, "new") && strcmp(options->start, "first"))
        fail("--start", "new or first");
    if (!strcmp(options->mode, "sub") && options->channels > 1)
        fail("--channels", "only of pub and sync");
    if (!strcmp(options->mode, "sync"))
        options->window = 1;
}

int main(int count, char **arguments)
{
    struct options options;
    struct session session = {0};
    struct tally tally = {0};
    int64_t *latencies_ns = NULL;
    parse_options(count, arguments, &options);
    session_open(&session, options.port, options.cluster, options.client, options.timeout_s);
    session_register(&session, options.client);
    if (!strcmp(options.mode, "sub")) {
        consume(&options, &session, &tally);
    } else {
        if (!strcmp(options.mode, "sync"))
            latencies_ns = calloc((size_t)options.count, sizeof *latencies_ns);
        publish(&options, &session, &tally, latencies_ns);
    }
    if (!tally.timed_out)
        session_close(&session, options.client);
    report(&options, &session, &tally, latencies_ns);
    return tally.timed_out || session.error_total || tally.unexpected;
}
