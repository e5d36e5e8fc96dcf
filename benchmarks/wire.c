#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (256 * 1024)

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void fail(const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(2);
}

static void reserve(struct buffer *buffer, size_t more)
{
    size_t needed = buffer->length + more;
    if (needed <= buffer->capacity)
        return;
    size_t capacity = buffer->capacity ? buffer->capacity : 4096;
    while (capacity < needed)
        capacity *= 2;
    buffer->bytes = realloc(buffer->bytes, capacity);
    if (!buffer->bytes)
        fail("memory", strerror(errno));
    buffer->capacity = capacity;
}

void buffer_add(struct buffer *buffer, const void *bytes, size_t length)
{
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

void buffer_format(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    reserve(buffer, (size_t)length + 1);
    va_start(arguments, format);
    vsnprintf(buffer->bytes + buffer->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

void wire_connect(struct wire *wire, int port, const char *name)
{
    memset(wire, 0, sizeof *wire);
    wire->fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(wire->fd, (struct sockaddr *)&address, sizeof address))
        fail("connect", strerror(errno));
    int on = 1;
    setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(wire->fd, F_SETFL, O_NONBLOCK);
    buffer_format(&wire->out, "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"%s\",\"lang\":\"c\"}\r\n", name);
}

size_t wire_unsent(const struct wire *wire)
{
    return wire->out.length - wire->out_position;
}

static void write_some(struct wire *wire)
{
    while (wire_unsent(wire)) {
        ssize_t written = write(wire->fd, wire->out.bytes + wire->out_position, wire_unsent(wire));
        if (written < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            fail("write", strerror(errno));
        }
        wire->out_position += (size_t)written;
    }
    wire->out.length = wire->out_position = 0;
}

static void read_some(struct wire *wire)
{
    if (wire->in_position) {
        wire->in.length -= wire->in_position;
        memmove(wire->in.bytes, wire->in.bytes + wire->in_position, wire->in.length);
        wire->in_position = 0;
    }
    reserve(&wire->in, READ_BYTES);
    ssize_t count = read(wire->fd, wire->in.bytes + wire->in.length, READ_BYTES);
    if (count > 0)
        wire->in.length += (size_t)count;
    else if (count == 0)
        fail("read", "the NATS server closed the connection");
    else if (errno != EAGAIN && errno != EINTR)
        fail("read", strerror(errno));
}

void wire_pump(struct wire *wire, int timeout_ms)
{
    write_some(wire);
    struct pollfd poller = {.fd = wire->fd, .events = POLLIN};
    if (wire_unsent(wire))
        poller.events |= POLLOUT;
    if (poll(&poller, 1, timeout_ms) < 0 && errno != EINTR)
        fail("poll", strerror(errno));
    if (poller.revents & POLLOUT)
        write_some(wire);
    if (poller.revents & (POLLIN | POLLERR | POLLHUP))
        read_some(wire);
}

/* Splits "MSG subject sid [reply] size"; returns the size, -1 if the line has another form. */
static long parse_message_line(struct frame *frame)
{
    const char *tokens[5];
    size_t lengths[5];
    int count = 0;
    const char *at = frame->line, *end = frame->line + frame->line_length;
    while (at < end && count < 5) {
        while (at < end && *at == ' ')
            at++;
        const char *start = at;
        while (at < end && *at != ' ')
            at++;
        if (at > start) {
            tokens[count] = start;
            lengths[count++] = (size_t)(at - start);
        }
    }
    if (count < 4)
        return -1;
    frame->sid = strtol(tokens[2], NULL, 10);
    frame->reply = count == 5 ? tokens[3] : NULL;
    frame->reply_length = count == 5 ? lengths[3] : 0;
    return strtol(tokens[count - 1], NULL, 10);
}

enum frame_kind wire_next(struct wire *wire, struct frame *frame)
{
    const char *start = wire->in.bytes + wire->in_position;
    size_t available = wire->in.length - wire->in_position;
    const char *newline = available ? memchr(start, '\n', available) : NULL;
    if (!newline)
        return frame->kind = FRAME_INCOMPLETE;
    frame->line = start;
    frame->line_length = (size_t)(newline - start);
    if (frame->line_length && start[frame->line_length - 1] == '\r')
        frame->line_length--;
    size_t used = (size_t)(newline + 1 - start);
    if (frame->line_length > 4 && !memcmp(start, "MSG ", 4)) {
        long size = parse_message_line(frame);
        if (size < 0)
            fail("protocol", "malformed MSG line");
        if (available < used + (size_t)size + 2)
            return frame->kind = FRAME_INCOMPLETE;
        frame->data = start + used;
        frame->data_length = (size_t)size;
        used += (size_t)size + 2;
        frame->kind = FRAME_MESSAGE;
    } else if (frame->line_length == 4 && !memcmp(start, "PING", 4)) {
        buffer_add(&wire->out, "PONG\r\n", 6);
        frame->kind = FRAME_PING;
    } else if (frame->line_length == 4 && !memcmp(start, "PONG", 4)) {
        frame->kind = FRAME_PONG;
    } else if (frame->line_length >= 4 && !memcmp(start, "-ERR", 4)) {
        frame->kind = FRAME_ERROR;
    } else {
        frame->kind = FRAME_OTHER;
    }
    wire->in_position += used;
    return frame->kind;
}

void wire_publish(struct wire *wire, const char *subject, const char *reply, const struct buffer *payload)
{
    buffer_format(&wire->out, "PUB %s %s%s%zu\r\n", subject, reply, *reply ? " " : "", payload->length);
    if (payload->length)
        buffer_add(&wire->out, payload->bytes, payload->length);
    buffer_add(&wire->out, "\r\n", 2);
}

static void add_varint(struct buffer *message, uint64_t value)
{
    unsigned char encoded[10];
    size_t length = 0;
    do {
        encoded[length] = (unsigned char)(value & 127);
        value >>= 7;
        if (value)
            encoded[length] |= 128;
        length++;
    } while (value);
    buffer_add(message, encoded, length);
}

void proto_varint(struct buffer *message, int field, uint64_t value)
{
    add_varint(message, (uint64_t)field << 3);
    add_varint(message, value);
}

void proto_bytes(struct buffer *message, int field, const void *bytes, size_t length)
{
    add_varint(message, (uint64_t)field << 3 | 2);
    add_varint(message, length);
    buffer_add(message, bytes, length);
}

void proto_text(struct buffer *message, int field, const char *text)
{
    proto_bytes(message, field, text, strlen(text));
}

static uint64_t read_varint(const char *data, size_t length, size_t *position)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && *position < length; shift += 7) {
        unsigned char byte = (unsigned char)data[(*position)++];
        value |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128))
            return value;
    }
    fail("protobuf", "truncated varint");
    return 0;
}

int proto_next(const char *data, size_t length, size_t *position, struct proto_field *field)
{
    if (*position >= length)
        return 0;
    uint64_t tag = read_varint(data, length, position);
    field->number = (int)(tag >> 3);
    field->bytes = NULL;
    field->value = field->length = 0;
    switch (tag & 7) {
    case 0:
        field->value = read_varint(data, length, position);
        break;
    case 2:
        field->length = read_varint(data, length, position);
        if (field->length > length - *position)
            fail("protobuf", "truncated field");
        field->bytes = data + *position;
        *position += field->length;
        break;
    default:
        fail("protobuf", "a wire type STAN does not use");
    }
    return 1;
}
