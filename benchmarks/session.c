#define _GNU_SOURCE
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void copy_text(char *target, size_t capacity, const char *bytes, size_t length)
{
    if (length >= capacity)
        length = capacity - 1;
    memcpy(target, bytes, length);
    target[length] = 0;
}

long number_option(const char *text, const char *name)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (!*text || *end || value < 0)
        fail(name, "a number of 0 or more is needed");
    return value;
}

void session_open(struct session *session, int port, const char *cluster, const char *name, long timeout_s)
{
    session->cluster = cluster;
    session->timeout_s = timeout_s;
    snprintf(session->identity, sizeof session->identity, "%08x%014" PRIx64, (unsigned)getpid(),
             (uint64_t)now_ns() & 0xffffffffffffff);
    wire_connect(&session->wire, port, name);
    const char *id = session->identity;
    buffer_format(&session->wire.out, "SUB _STAN.acks.%s %d\r\nSUB _INBOX.%s.beat.* %d\r\nSUB _INBOX.%s.answer %d\r\n",
                  id, SID_PUBACK, id, SID_HEARTBEAT, id, SID_ANSWER);
}

void session_count_error(struct session *session, const char *bytes, size_t length)
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

void session_handle_other(struct session *session, const struct frame *frame)
{
    if (frame->kind == FRAME_ERROR) {
        session_count_error(session, frame->line, frame->line_length);
    } else if (frame->kind == FRAME_MESSAGE && frame->sid == SID_HEARTBEAT && frame->reply) {
        session->heartbeats++;
        buffer_format(&session->wire.out, "PUB %.*s 0\r\n\r\n", (int)frame->reply_length, frame->reply);
    }
}

void session_await(struct session *session, enum frame_kind kind, long sid, struct frame *frame, const char *what)
{
    int64_t deadline = now_ns() + session->timeout_s * 1000000000;
    for (;;) {
        while (wire_next(&session->wire, frame) != FRAME_INCOMPLETE) {
            if (frame->kind == kind && (kind != FRAME_MESSAGE || frame->sid == sid))
                return;
            session_handle_other(session, frame);
        }
        if (now_ns() > deadline)
            fail(what, "no answer in time");
        wire_pump(&session->wire, 100);
    }
}

void session_request(struct session *session, const char *subject, const struct buffer *payload, struct frame *answer)
{
    char reply[64];
    snprintf(reply, sizeof reply, "_INBOX.%s.answer", session->identity);
    wire_publish(&session->wire, subject, reply, payload);
    session_await(session, FRAME_MESSAGE, SID_ANSWER, answer, subject);
}

void session_connect_request(const struct session *session, struct buffer *message, const char *client,
                             const char *connection_id, const char *beat)
{
    char inbox[96];
    snprintf(inbox, sizeof inbox, "_INBOX.%s.beat.%s", session->identity, beat);
    proto_text(message, 1, client);
    proto_text(message, 2, inbox);
    proto_varint(message, 3, 1);
    proto_text(message, 4, connection_id);
    proto_varint(message, 5, 5);
    proto_varint(message, 6, 88);
}

void session_register(struct session *session, const char *client)
{
    struct buffer message = {0};
    char subject[SUBJECT_BYTES];
    snprintf(subject, sizeof subject, "_STAN.discover.%s", session->cluster);
    session_connect_request(session, &message, client, session->identity, "0");
    struct frame answer;
    session_request(session, subject, &message, &answer);
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

void session_close(struct session *session, const char *client)
{
    struct buffer message = {0};
    proto_text(&message, 1, client);
    struct frame answer;
    session_request(session, session->close_subject, &message, &answer);
    struct proto_field field;
    for (size_t at = 0; proto_next(answer.data, answer.data_length, &at, &field);)
        if (field.number == 1)
            session_count_error(session, field.bytes, field.length);
    free(message.bytes);
}

void session_barrier(void)
{
    char line[64];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        fail("barrier", "standard input was closed");
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

void session_print_errors(const struct session *session)
{
    putchar('{');
    for (long i = 0; i < session->error_kinds; i++) {
        printf(i ? "," : "");
        print_text(session->errors[i].text);
        printf(":%ld", session->errors[i].count);
    }
    putchar('}');
}
