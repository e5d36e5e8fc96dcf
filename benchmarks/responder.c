/* The yardstick: answers connects, closes and publishes at once, keeps nothing, delivers nothing.
 *
 * Usage: responder PORT CLUSTER_ID. Prints "ready" when its subscriptions are in place; ends with its NATS server.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

enum { SID_CONNECT = 1, SID_PUBLISH, SID_CLOSE };

static void answer_connect(struct wire *wire, const char *reply, const char *cluster)
{
    struct buffer answer = {0};
    static const struct { int field; const char *verb; } subjects[] = {
        {1, "pub"}, {2, "sub"}, {3, "unsub"}, {4, "close"}, {6, "subclose"}};
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
        char subject[512];
        snprintf(subject, sizeof subject, "_STAN.%s.%s", subjects[i].verb, cluster);
        proto_text(&answer, subjects[i].field, subject);
    }
    proto_varint(&answer, 10, 1);
    wire_publish(wire, reply, "", &answer);
    free(answer.bytes);
}

static void answer_publish(struct wire *wire, const struct frame *frame)
{
    struct proto_field field;
    size_t position = 0;
    while (proto_next(frame->data, frame->data_length, &position, &field)) {
        if (field.number != 2 || field.length > 127)
            continue;
        char head[2] = {0x0a, (char)field.length};
        buffer_add(&wire->out, "PUB ", 4);
        buffer_add(&wire->out, frame->reply, frame->reply_length);
        buffer_format(&wire->out, " %zu\r\n", field.length + 2);
        buffer_add(&wire->out, head, 2);
        buffer_add(&wire->out, field.bytes, field.length);
        buffer_add(&wire->out, "\r\n", 2);
        return;
    }
}

int main(int count, char **arguments)
{
    if (count != 3)
        fail("usage", "responder PORT CLUSTER_ID");
    const char *cluster = arguments[2];
    struct wire wire;
    wire_connect(&wire, atoi(arguments[1]), "responder");
    buffer_format(&wire.out, "SUB _STAN.discover.%s %d\r\nSUB _STAN.pub.%s.> %d\r\nSUB _STAN.close.%s %d\r\nPING\r\n",
                  cluster, SID_CONNECT, cluster, SID_PUBLISH, cluster, SID_CLOSE);
    struct buffer nothing = {0};
    for (;;) {
        wire_pump(&wire, -1);
        struct frame frame;
        while (wire_next(&wire, &frame) != FRAME_INCOMPLETE) {
            if (frame.kind == FRAME_PONG) {
                puts("ready");
                fflush(stdout);
            }
            if (frame.kind != FRAME_MESSAGE || !frame.reply)
                continue;
            if (frame.sid == SID_PUBLISH) {
                answer_publish(&wire, &frame);
                continue;
            }
            char reply[512];
            snprintf(reply, sizeof reply, "%.*s", (int)frame.reply_length, frame.reply);
            if (frame.sid == SID_CONNECT)
                answer_connect(&wire, reply, cluster);
            else
                wire_publish(&wire, reply, "", &nothing);
        }
    }
}
