/* Drives libnats (compiled with streaming) by commands on standard input; ../README.md has the commands. */
#include <nats.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACK_TIMEOUT_MS = 2000, RECONNECT_WAIT_MS = 100, MAX_SUBSCRIPTIONS = 16, MAX_UNACKED = 256, MAX_WORDS = 9 };

struct subscription {
    char name[64];
    bool manual;
    stanSubscription *handle;
    stanMsg *unacked[MAX_UNACKED];
    int unacked_count;
};

struct load {
    char channel[256], prefix[64];
    long count, window;
};

static stanConnection *connection;
static struct subscription subscriptions[MAX_SUBSCRIPTIONS];
static int subscription_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static long outstanding;
static bool stopping;

/* Channel names, ids and data of the tests need no escapes; texts of libraries and server may hold quotes. */
static void print_text(const char *text)
{
    putchar('"');
    for (; text && *text; text++)
        printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    putchar('"');
}

static void say_data(const char *event, const char *data, const char *error)
{
    flockfile(stdout);
    printf("{\"event\":\"%s\",\"data\":", event);
    print_text(data);
    printf(",\"error\":");
    print_text(error);
    printf("}\n");
    fflush(stdout);
    funlockfile(stdout);
}

static void say_name(const char *event, const char *name)
{
    flockfile(stdout);
    printf("{\"event\":\"%s\",\"name\":\"%s\"}\n", event, name);
    fflush(stdout);
    funlockfile(stdout);
}

static void say_error(const char *command, const char *text)
{
    flockfile(stdout);
    printf("{\"event\":\"error\",\"command\":\"%s\",\"text\":", command);
    print_text(text);
    printf("}\n");
    fflush(stdout);
    funlockfile(stdout);
}

static natsStatus check(const char *command, natsStatus status)
{
    if (status != NATS_OK) {
        natsStatus last;
        const char *detail = nats_GetLastError(&last);
        say_error(command, detail && *detail ? detail : natsStatus_GetText(status));
    }
    return status;
}

static void on_reconnected(natsConnection *nats, void *closure)
{
    (void)nats, (void)closure;
    say_name("reconnected", "");
}

static void on_lost(stanConnection *lost, const char *text, void *closure)
{
    (void)lost, (void)closure;
    flockfile(stdout);
    printf("{\"event\":\"lost\",\"text\":");
    print_text(text);
    printf("}\n");
    fflush(stdout);
    funlockfile(stdout);
}

static void do_connect(char **words)
{
    natsOptions *nats = NULL;
    stanConnOptions *options = NULL;
    natsOptions_Create(&nats);
    natsOptions_SetURL(nats, words[1]);
    natsOptions_SetMaxReconnect(nats, -1);
    natsOptions_SetReconnectWait(nats, RECONNECT_WAIT_MS);
    natsOptions_SetReconnectedCB(nats, on_reconnected, NULL);
    stanConnOptions_Create(&options);
    stanConnOptions_SetNATSOptions(options, nats);
    stanConnOptions_SetURL(options, words[1]);
    stanConnOptions_SetPubAckWait(options, ACK_TIMEOUT_MS);
    stanConnOptions_SetConnectionLostHandler(options, on_lost, NULL);
    if (check("connect", stanConnection_Connect(&connection, words[2], words[3], options)) == NATS_OK)
        say_name("connected", "");
    stanConnOptions_Destroy(options);
    natsOptions_Destroy(nats);
}

static void do_publish(char **words)
{
    natsStatus status = stanConnection_Publish(connection, words[1], words[2], (int)strlen(words[2]));
    const char *detail = status == NATS_OK ? "" : nats_GetLastError(NULL);
    say_data("published", words[2], status == NATS_OK || (detail && *detail) ? detail : natsStatus_GetText(status));
}

static void on_ack(const char *guid, const char *error, void *closure)
{
    (void)guid;
    say_data("ack", closure, error ? error : "");
    free(closure);
    pthread_mutex_lock(&lock);
    outstanding--;
    pthread_cond_signal(&answered);
    pthread_mutex_unlock(&lock);
}

static void *run_load(void *argument)
{
    struct load *load = argument;
    for (long i = 0; i < load->count; i++) {
        pthread_mutex_lock(&lock);
        while (outstanding >= load->window && !stopping)
            pthread_cond_wait(&answered, &lock);
        bool stop = stopping;
        outstanding += stop ? 0 : 1;
        pthread_mutex_unlock(&lock);
        if (stop)
            break;
        char *data = malloc(128);
        snprintf(data, 128, "%s%ld", load->prefix, i);
        say_data("invoke", data, "");
        natsStatus status =
            stanConnection_PublishAsync(connection, load->channel, data, (int)strlen(data), on_ack, data);
        if (status != NATS_OK)
            on_ack("", natsStatus_GetText(status), data);
    }
    pthread_mutex_lock(&lock);
    while (outstanding)
        pthread_cond_wait(&answered, &lock);
    pthread_mutex_unlock(&lock);
    say_name("load_done", "");
    free(load);
    return NULL;
}

static void do_load(char **words)
{
    struct load *load = calloc(1, sizeof *load);
    pthread_t thread;
    snprintf(load->channel, sizeof load->channel, "%s", words[1]);
    snprintf(load->prefix, sizeof load->prefix, "%s", words[2]);
    load->count = atol(words[3]);
    load->window = atol(words[4]);
    stopping = false;
    pthread_create(&thread, NULL, run_load, load);
    pthread_detach(thread);
}

static void do_stop(char **words)
{
    (void)words;
    pthread_mutex_lock(&lock);
    stopping = true;
    pthread_cond_signal(&answered);
    pthread_mutex_unlock(&lock);
}

static void on_message(stanConnection *stan, stanSubscription *handle, const char *channel, stanMsg *message,
                       void *closure)
{
    struct subscription *subscription = closure;
    (void)stan, (void)handle, (void)channel;
    /* Kept before it is told: whoever is told may ack at once. */
    pthread_mutex_lock(&lock);
    bool keep = subscription->manual && subscription->unacked_count < MAX_UNACKED;
    if (keep)
        subscription->unacked[subscription->unacked_count++] = message;
    pthread_mutex_unlock(&lock);
    flockfile(stdout);
    printf("{\"event\":\"message\",\"name\":\"%s\",\"sequence\":%llu,\"redelivered\":%s,\"data\":\"%.*s\"}\n",
           subscription->name, (unsigned long long)stanMsg_GetSequence(message),
           stanMsg_IsRedelivered(message) ? "true" : "false", stanMsg_GetDataLength(message), stanMsg_GetData(message));
    fflush(stdout);
    funlockfile(stdout);
    if (!keep)
        stanMsg_Destroy(message);
}

#define MS_MARGIN 20

static bool set_start(stanSubOptions *options, const char *start)
{
    const char *value = strchr(start, ':');
    if (!strcmp(start, "last"))
        stanSubOptions_StartWithLastReceived(options);
    else if (!strcmp(start, "first"))
        stanSubOptions_DeliverAllAvailable(options);
    else if (value && !strncmp(start, "sequence", 8))
        stanSubOptions_StartAtSequence(options, (uint64_t)atoll(value + 1));
    else if (value && !strncmp(start, "ago", 3))
        /* The library counts in whole ms and turns a time into a distance later on: a tick between would reach back. */
        stanSubOptions_StartAtTime(options, nats_Now() - atoll(value + 1) * 1000 + MS_MARGIN);
    else
        return !strcmp(start, "new");
    return true;
}

static void do_subscribe(char **words)
{
    if (subscription_count == MAX_SUBSCRIPTIONS) {
        say_error("subscribe", "too many subscriptions for this program");
        return;
    }
    struct subscription *subscription = &subscriptions[subscription_count];
    stanSubOptions *options = NULL;
    snprintf(subscription->name, sizeof subscription->name, "%s", words[1]);
    subscription->manual = !strcmp(words[7], "manual");
    stanSubOptions_Create(&options);
    if (!set_start(options, words[3]))
        say_error("subscribe", "unknown start position");
    stanSubOptions_SetMaxInflight(options, atoi(words[4]));
    stanSubOptions_SetAckWait(options, atoll(words[5]) * 1000);
    stanSubOptions_SetManualAckMode(options, subscription->manual);
    if (strcmp(words[6], "-"))
        stanSubOptions_SetDurableName(options, words[6]);
    natsStatus status =
        strcmp(words[8], "-")
            ? stanConnection_QueueSubscribe(&subscription->handle, connection, words[2], words[8], on_message,
                                            subscription, options)
            : stanConnection_Subscribe(&subscription->handle, connection, words[2], on_message, subscription, options);
    if (check("subscribe", status) == NATS_OK) {
        subscription_count++;
        say_name("subscribed", words[1]);
    }
    stanSubOptions_Destroy(options);
}

/* The latest subscription of that name: names may be used again after the end of a subscription. */
static struct subscription *find(const char *name)
{
    for (int i = subscription_count; i-- > 0;)
        if (!strcmp(subscriptions[i].name, name))
            return &subscriptions[i];
    say_error("find", name);
    exit(1);
}

static void do_ack(char **words)
{
    struct subscription *subscription = find(words[1]);
    uint64_t sequence = strtoull(words[2], NULL, 10);
    stanMsg *message = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < subscription->unacked_count; i++)
        if (stanMsg_GetSequence(subscription->unacked[i]) == sequence)
            message = subscription->unacked[i];
    pthread_mutex_unlock(&lock);
    if (!message) {
        say_error("ack", "no such message");
        return;
    }
    natsConnection *nats = NULL;
    natsStatus status = stanSubscription_AckMsg(subscription->handle, message);
    if (status == NATS_OK)
        status = stanConnection_GetNATSConnection(connection, &nats);
    if (status == NATS_OK) {
        status = natsConnection_Flush(nats);
        stanConnection_ReleaseNATSConnection(connection);
    }
    if (check("ack", status) == NATS_OK)
        say_name("acked", words[1]);
}

static void do_unsubscribe(char **words)
{
    if (check("unsubscribe", stanSubscription_Unsubscribe(find(words[1])->handle)) == NATS_OK)
        say_name("unsubscribed", words[1]);
}

static void do_close_subscription(char **words)
{
    if (check("close_subscription", stanSubscription_Close(find(words[1])->handle)) == NATS_OK)
        say_name("subscription_closed", words[1]);
}

static void do_close(char **words)
{
    (void)words;
    if (check("close", stanConnection_Close(connection)) == NATS_OK)
        say_name("closed", "");
}

static const struct {
    const char *name;
    int words;
    void (*run)(char **words);
} commands[] = {
    {"connect", 4, do_connect},         {"publish", 3, do_publish},
    {"load", 5, do_load},               {"stop", 1, do_stop},
    {"subscribe", 9, do_subscribe},     {"ack", 3, do_ack},
    {"unsubscribe", 2, do_unsubscribe}, {"close_subscription", 2, do_close_subscription},
    {"close", 1, do_close},
};

int main(void)
{
    static char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        char *words[MAX_WORDS] = {0};
        int count = 0;
        for (char *word = strtok(line, " \n"); word && count < MAX_WORDS; word = strtok(NULL, " \n"))
            words[count++] = word;
        if (!count)
            continue;
        size_t i = 0, known = sizeof commands / sizeof *commands;
        while (i < known && strcmp(commands[i].name, words[0]))
            i++;
        if (i == known || count != commands[i].words)
            say_error(words[0], "unknown command or wrong number of words");
        else
            commands[i].run(words);
    }
    return 0;
}
