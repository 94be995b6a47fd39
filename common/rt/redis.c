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

enum { MAX_ARGS = 4096, MAX_SCRIPTS = 8, RUN_ID_LEN = 40, SHA_LEN = 40 };

struct redis {
    char host[256], user[128], password[256];
    int port, db;
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

/* --- the address --- */

/* Percent-decodes s into out. */
static bool decode(struct str s, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char byte;
        if (n + 1 >= cap) return false;
        if (s.p[i] != '%') {
            out[n++] = s.p[i];
        } else if (i + 2 < s.n && hex_decode(str_n(s.p + i + 1, 2), &byte, 1) == ERR_OK &&
                   byte != 0) {
            out[n++] = (char)byte;
            i += 2;
        } else {
            return false;
        }
    }
    out[n] = '\0';
    return true;
}

static bool parse_login(struct redis *r, struct str login)
{
    const char *colon = memchr(login.p, ':', login.n);
    struct str user = login, password = STR("");
    if (colon != NULL) {
        user.n = (size_t)(colon - login.p);
        password = str_n(colon + 1, login.n - user.n - 1);
    }
    return decode(user, r->user, sizeof r->user) &&
           decode(password, r->password, sizeof r->password);
}

static bool parse_place(struct redis *r, struct str place)
{
    struct str host = place, port = STR_NULL;
    uint64_t number = 6379;
    const char *end = NULL;
    if (place.n > 0 && place.p[0] == '[') {
        end = memchr(place.p, ']', place.n);
        if (end == NULL) return false;
        host = str_n(place.p + 1, (size_t)(end - place.p) - 1);
        port = str_n(end + 1, place.n - (size_t)(end + 1 - place.p));
        if (port.n > 0 && port.p[0] != ':') return false;
        if (port.n > 0) port = str_n(port.p + 1, port.n - 1);
    } else if ((end = memchr(place.p, ':', place.n)) != NULL) {
        host.n = (size_t)(end - place.p);
        port = str_n(end + 1, place.n - host.n - 1);
    }
    if (end != NULL && port.n > 0 && str_to_u64(port, &number) != ERR_OK) return false;
    if (number == 0 || number > 65535) return false;
    r->port = (int)number;
    return host.n > 0 && decode(host, r->host, sizeof r->host);
}

static bool parse_url(struct redis *r, struct str url)
{
    struct str rest, place, db;
    uint64_t number = 0;
    if (!str_starts(url, STR("redis://"))) return false;
    rest = str_n(url.p + 8, url.n - 8);
    for (size_t i = rest.n; i > 0; i--) { /* the last @: a password may hold one */
        if (rest.p[i - 1] != '@') continue;
        if (!parse_login(r, str_n(rest.p, i - 1))) return false;
        rest = str_n(rest.p + i, rest.n - i);
        break;
    }
    place = str_cut(&rest, '/');
    db = rest;
    if (db.n > 0 && (str_to_u64(db, &number) != ERR_OK || number > 1000000)) return false;
    r->db = (int)number;
    return place.n > 0 && parse_place(r, place);
}

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
    if (!parse_url(r, str_of(url))) {
        redis_free(r);
        return why_set(why, ERR_INVALID, "the address is not redis://[:password@]host[:port][/db]");
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
    const char *with_user[] = { "AUTH", r->user, r->password };
    const char *without[] = { "AUTH", r->password };
    if (r->password[0] == '\0') return ERR_OK;
    enum err e = r->user[0] != '\0' ? call_words(r, with_user, 3, why)
                                    : call_words(r, without, 2, why);
    return e == ERR_INVALID ? why_set(why, ERR_UNAVAILABLE, "Redis: the password is refused") : e;
}

static enum err select_db(struct redis *r, struct why *why)
{
    char number[16];
    const char *words[] = { "SELECT", number };
    if (r->db == 0) return ERR_OK;
    snprintf(number, sizeof number, "%d", r->db);
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

enum err redis_connect(struct redis *r, char ret_run_id[41], struct why *why)
{
    enum err e = ERR_OK;
    if (r->c == NULL) {
        r->c = redisConnectWithTimeout(r->host, r->port, r->connect_timeout);
        if (r->c == NULL) return ERR_NOMEM;
        if (r->c->err != 0) return io_failure(r, why);
        if (redisSetTimeout(r->c, r->call_timeout) != REDIS_OK) return io_failure(r, why);
        e = log_in(r, why);
        if (e == ERR_OK) e = select_db(r, why);
        if (e == ERR_OK) e = read_run_id(r, why);
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
