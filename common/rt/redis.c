/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hiredis behind our interface. One connection, made when it is first needed and again after each
 * failure; one owner at a time. Addresses hold passwords: no message quotes them.
 */
#include "rt/redis.h"

#include <errno.h>
#include <hiredis.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/redis_url.h"

enum { MAX_ARGS = 4096, MAX_SCRIPTS = 8, RUN_ID_LEN = 40, SHA_LEN = 40 };

struct redis {
    struct redis_address at;
    size_t sentinel; /* the one that answered last */
    struct timeval connect_timeout, call_timeout;
    redisContext *c; /* NULL: not connected */
    redisReply *reply;
    char run_id[RUN_ID_LEN + 1];
    /* Digests of scripts by the address of their text. */
    struct {
        const char *script;
        char sha[SHA_LEN + 1];
    } scripts[MAX_SCRIPTS];
};

static struct timeval in_ms(int ms)
{
    return (struct timeval){ ms / 1000, (ms % 1000) * 1000 };
}

enum err redis_new(const char *url, int connect_timeout_ms, int call_timeout_ms, struct redis **ret,
                   struct why *why)
{
    struct redis *r = calloc(1, sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    r->connect_timeout = in_ms(connect_timeout_ms);
    r->call_timeout = in_ms(call_timeout_ms);
    enum err e = redis_url_parse(str_of(url), &r->at, why);
    if (e != ERR_OK) {
        redis_free(r);
        return e;
    }
    *ret = r;
    return ERR_OK;
}

/* --- the connection --- */

static void forget_reply(struct redis *r)
{
    if (r->reply != NULL) freeReplyObject(r->reply);
    r->reply = NULL;
}

static void disconnect(struct redis *r)
{
    forget_reply(r);
    if (r->c != NULL) redisFree(r->c);
    r->c = NULL;
}

void redis_free(struct redis *r)
{
    if (r == NULL) return;
    disconnect(r);
    free(r);
}

static enum err io_failure(struct redis *r, struct why *why)
{
    bool slow = r->c->err == REDIS_ERR_IO && (errno == EAGAIN || errno == ETIMEDOUT);
    enum err e = why_set(why, slow ? ERR_TIMEOUT : ERR_UNAVAILABLE, "Redis: %s",
                         slow ? "no answer in time" : r->c->errstr);
    disconnect(r);
    return e;
}

/* Errors that mean this server cannot serve now, not that we asked nonsense. */
static bool is_away(struct str error)
{
    static const char *const words[] = { "LOADING",  "READONLY", "MASTERDOWN", "BUSY ",
                                         "OOM ",     "NOAUTH",   "WRONGPASS",  "CLUSTERDOWN",
                                         "TRYAGAIN", "MISCONF",  "NOREPLICAS" };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_starts(error, str_of(words[i]))) return true;
    return false;
}

/* Sends on the connection that stands. A refusal keeps it, unless the server is away. */
static enum err call(struct redis *r, int argc, const char **argv, const size_t *lens,
                     struct why *why)
{
    forget_reply(r);
    errno = 0;
    r->reply = redisCommandArgv(r->c, argc, argv, lens);
    if (r->reply == NULL) return io_failure(r, why);
    if (r->reply->type != REDIS_REPLY_ERROR) return ERR_OK;
    struct str error = str_n(r->reply->str, r->reply->len);
    enum err e = is_away(error) ? ERR_UNAVAILABLE : ERR_INVALID;
    e = why_set(why, e, "Redis: %.*s", (int)MIN(error.n, (size_t)200), error.p);
    if (e == ERR_UNAVAILABLE) disconnect(r);
    return e;
}

static enum err call_words(struct redis *r, const char *const *words, int n, struct why *why)
{
    size_t lens[4];
    const char *argv[4];
    for (int i = 0; i < n; i++) {
        argv[i] = words[i];
        lens[i] = strlen(words[i]);
    }
    return call(r, n, argv, lens, why);
}

static enum err log_in(struct redis *r, struct why *why)
{
    const char *with_user[] = { "AUTH", r->at.user, r->at.password };
    const char *without[] = { "AUTH", r->at.password };
    if (r->at.password[0] == '\0') return ERR_OK;
    enum err e = r->at.user[0] != '\0' ? call_words(r, with_user, 3, why)
                                       : call_words(r, without, 2, why);
    return e == ERR_INVALID ? why_set(why, ERR_UNAVAILABLE, "Redis: the password is refused") : e;
}

static enum err select_db(struct redis *r, struct why *why)
{
    char number[16];
    const char *words[] = { "SELECT", number };
    if (r->at.db == 0) return ERR_OK;
    snprintf(number, sizeof number, "%d", r->at.db);
    return call_words(r, words, 2, why);
}

static enum err read_run_id(struct redis *r, struct why *why)
{
    const char *words[] = { "INFO", "server" };
    enum err e = call_words(r, words, 2, why);
    if (e != ERR_OK) return e;
    struct str rest = r->reply->type == REDIS_REPLY_STRING ? str_n(r->reply->str, r->reply->len)
                                                           : STR("");
    while (rest.n > 0) {
        struct str line = str_cut(&rest, '\n');
        if (!str_starts(line, STR("run_id:"))) continue;
        line = str_n(line.p + 7, line.n - 7);
        if (line.n > 0 && line.p[line.n - 1] == '\r') line.n--;
        (void)str_copyz(r->run_id, sizeof r->run_id, line);
        return ERR_OK;
    }
    return why_set(why, ERR_UNAVAILABLE, "Redis: it does not tell its run_id");
}

static enum err dial(struct redis *r, const struct redis_place *to, struct why *why)
{
    r->c = redisConnectWithTimeout(to->host, to->port, r->connect_timeout);
    if (r->c == NULL) return ERR_NOMEM;
    if (r->c->err != 0) return io_failure(r, why);
    /* one that recovers has much to do at first: until it is set up, more patience */
    if (redisSetTimeout(r->c, r->connect_timeout) != REDIS_OK) return io_failure(r, why);
    return ERR_OK;
}

/* What one Sentinel says where the master is. */
static enum err ask_sentinel(struct redis *r, const struct redis_place *sentinel,
                             struct redis_place *ret, struct why *why)
{
    const char *words[] = { "SENTINEL", "get-master-addr-by-name", r->at.master };
    uint64_t port;
    enum err e = dial(r, sentinel, why);
    if (e == ERR_OK) e = call_words(r, words, 3, why);
    if (e == ERR_OK) {
        const redisReply *v = r->reply;
        bool known = v->type == REDIS_REPLY_ARRAY && v->elements == 2 &&
                     v->element[0]->type == REDIS_REPLY_STRING &&
                     v->element[1]->type == REDIS_REPLY_STRING &&
                     str_copyz(ret->host, sizeof ret->host,
                               str_n(v->element[0]->str, v->element[0]->len)) &&
                     str_to_u64(str_n(v->element[1]->str, v->element[1]->len), &port) == ERR_OK &&
                     port > 0 && port <= 65535;
        if (known)
            ret->port = (int)port;
        else
            e = why_set(why, ERR_UNAVAILABLE, "Sentinel does not know the master %s", r->at.master);
    }
    disconnect(r);
    return e == ERR_INVALID ? ERR_UNAVAILABLE : e;
}

/* A master that was put down may not know it yet; one that is a replica says so. */
static enum err check_role(struct redis *r, struct why *why)
{
    const char *words[] = { "ROLE" };
    enum err e = call_words(r, words, 1, why);
    if (e != ERR_OK) return e;
    const redisReply *v = r->reply;
    if (v->type == REDIS_REPLY_ARRAY && v->elements > 0 &&
        v->element[0]->type == REDIS_REPLY_STRING &&
        str_eqz(str_n(v->element[0]->str, v->element[0]->len), "master"))
        return ERR_OK;
    return why_set(why, ERR_UNAVAILABLE, "Redis: the server that Sentinel names is no master");
}

static enum err find_and_dial(struct redis *r, struct why *why)
{
    enum err e = ERR_UNAVAILABLE;
    struct redis_place master = { .port = 0 };
    if (!r->at.by_sentinel) return dial(r, &r->at.places[0], why);
    for (size_t i = 0; i < r->at.places_n; i++) {
        size_t which = (r->sentinel + i) % r->at.places_n;
        e = ask_sentinel(r, &r->at.places[which], &master, why);
        if (e != ERR_OK) continue;
        r->sentinel = which;
        return dial(r, &master, why);
    }
    return e;
}

enum err redis_connect(struct redis *r, char ret_run_id[41], struct why *why)
{
    enum err e = ERR_OK;
    if (r->c == NULL) {
        e = find_and_dial(r, why);
        if (e == ERR_OK) e = log_in(r, why);
        if (e == ERR_OK && r->at.by_sentinel) e = check_role(r, why);
        if (e == ERR_OK) e = select_db(r, why);
        if (e == ERR_OK) e = read_run_id(r, why);
        if (e == ERR_OK && redisSetTimeout(r->c, r->call_timeout) != REDIS_OK)
            e = io_failure(r, why);
        if (e != ERR_OK) disconnect(r);
    }
    if (e == ERR_OK && ret_run_id != NULL) memcpy(ret_run_id, r->run_id, sizeof r->run_id);
    return e;
}

/* --- commands --- */

static enum err command(struct redis *r, const struct str *args, size_t n, struct why *why)
{
    if (n == 0 || n > MAX_ARGS) return why_set(why, ERR_INVALID, "%zu arguments", n);
    enum err e = redis_connect(r, NULL, why);
    if (e != ERR_OK) return e;
    const char **argv = calloc(n, sizeof *argv);
    size_t *lens = calloc(n, sizeof *lens);
    if (argv == NULL || lens == NULL) {
        e = ERR_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        argv[i] = args[i].p != NULL ? args[i].p : "";
        lens[i] = args[i].n;
    }
    e = call(r, (int)n, argv, lens, why);
out:
    free(argv);
    free(lens);
    return e;
}

enum err redis_command(struct redis *r, const struct str *args, size_t n,
                       const struct redis_value **ret, struct why *why)
{
    enum err e = command(r, args, n, why);
    if (e == ERR_OK) *ret = (const struct redis_value *)r->reply;
    return e;
}

/* The digest under which the server knows the script; loads it when load is set or it is new. */
static enum err sha_of(struct redis *r, const char *script, bool load, const char **ret,
                       struct why *why)
{
    size_t i = 0;
    while (i < MAX_SCRIPTS && r->scripts[i].script != NULL && r->scripts[i].script != script) i++;
    if (i == MAX_SCRIPTS) return why_set(why, ERR_LIMIT, "more than %d scripts", MAX_SCRIPTS);
    if (load || r->scripts[i].script == NULL) {
        const struct str args[] = { STR("SCRIPT"), STR("LOAD"), str_of(script) };
        enum err e = command(r, args, 3, why);
        if (e != ERR_OK) return e;
        if (r->reply->type != REDIS_REPLY_STRING || r->reply->len != SHA_LEN)
            return why_set(why, ERR_INVALID, "Redis: no digest for a script");
        memcpy(r->scripts[i].sha, r->reply->str, SHA_LEN);
        r->scripts[i].script = script;
    }
    *ret = r->scripts[i].sha;
    return ERR_OK;
}

enum err redis_eval(struct redis *r, const char *script, const struct str *keys, size_t keys_n,
                    const struct str *args, size_t args_n, const struct redis_value **ret,
                    struct why *why)
{
    char number[24];
    size_t n = 0;
    enum err e = ERR_INVALID;
    struct str *all = calloc(3 + keys_n + args_n, sizeof *all);
    if (all == NULL) return ERR_NOMEM;
    snprintf(number, sizeof number, "%zu", keys_n);
    all[n++] = STR("EVALSHA");
    all[n++] = STR_NULL;
    all[n++] = str_of(number);
    for (size_t i = 0; i < keys_n; i++) all[n++] = keys[i];
    for (size_t i = 0; i < args_n; i++) all[n++] = args[i];
    for (int attempt = 0; attempt < 2; attempt++) {
        const char *sha = NULL;
        e = sha_of(r, script, attempt > 0, &sha, why);
        if (e != ERR_OK) break;
        all[1] = str_of(sha);
        e = command(r, all, n, why);
        /* a server that was restarted or flushed its scripts */
        bool unknown = e == ERR_INVALID && r->reply != NULL &&
                       r->reply->type == REDIS_REPLY_ERROR &&
                       str_starts(str_n(r->reply->str, r->reply->len), STR("NOSCRIPT"));
        if (!unknown) break;
    }
    if (e == ERR_OK) *ret = (const struct redis_value *)r->reply;
    free(all);
    return e;
}

/* --- replies --- */

static const redisReply *in(const struct redis_value *v)
{
    return (const redisReply *)v;
}

enum redis_type redis_type(const struct redis_value *v)
{
    switch (in(v)->type) {
    case REDIS_REPLY_INTEGER: return REDIS_INT;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS: return REDIS_STRING;
    case REDIS_REPLY_ARRAY: return REDIS_ARRAY;
    default: return REDIS_NIL;
    }
}

int64_t redis_int(const struct redis_value *v)
{
    return redis_type(v) == REDIS_INT ? in(v)->integer : 0;
}

struct str redis_str(const struct redis_value *v)
{
    return redis_type(v) == REDIS_STRING ? str_n(in(v)->str, in(v)->len) : STR_NULL;
}

size_t redis_len(const struct redis_value *v)
{
    return redis_type(v) == REDIS_ARRAY ? in(v)->elements : 0;
}

const struct redis_value *redis_at(const struct redis_value *v, size_t i)
{
    ASSERT(i < redis_len(v));
    return (const struct redis_value *)in(v)->element[i];
}
