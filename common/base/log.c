/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

enum { LINE_MAX_BYTES = 16384 };

static struct {
    char svc[64], instance[128];
    enum log_level level;
} setup = { "", "", LOG_INFO };

static const char *const level_names[] = { "debug", "info", "warn", "error", "off" };

void log_setup(const char *svc, const char *instance, enum log_level level)
{
    (void)str_copyz(setup.svc, sizeof setup.svc, str_of(svc));
    (void)str_copyz(setup.instance, sizeof setup.instance, str_of(instance));
    setup.level = level;
}

enum err log_level_parse(struct str s, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++)
        if (str_ieqz(s, level_names[i])) return *ret = (enum log_level)i, ERR_OK;
    return ERR_INVALID;
}

bool log_enabled(enum log_level level)
{
    return level >= setup.level;
}

static enum err add_field(struct buf *b, const char *key, struct str s)
{
    enum err e = buf_append_char(b, ',');
    if (e == ERR_OK) e = buf_append_json(b, str_of(key));
    if (e == ERR_OK) e = buf_append_char(b, ':');
    if (e == ERR_OK) e = s.p != NULL ? buf_append_json(b, s) : buf_appendz(b, "null");
    return e;
}

static enum err format_line(struct buf *b, enum log_level level, const char *msg,
                            const struct log_field *f)
{
    char ts[TIME_RFC3339_LEN + 1];
    time_rfc3339(clock_wall_ns(clock_system()), ts);
    enum err e = buf_printf(b, "{\"ts\":\"%s\",\"level\":\"%s\"", ts, level_names[level]);
    if (e == ERR_OK) e = add_field(b, "svc", str_of(setup.svc));
    if (e == ERR_OK) e = add_field(b, "instance", str_of(setup.instance));
    if (e == ERR_OK) e = add_field(b, "msg", str_of(msg));
    for (; e == ERR_OK && f->kind != LOG_END; f++) {
        size_t before = b->len;
        if (f->kind == LOG_STR)
            e = add_field(b, f->key, f->s);
        else if (f->kind == LOG_INT)
            e = buf_printf(b, ",\"%s\":%lld", f->key, (long long)f->i);
        else
            e = buf_printf(b, ",\"%s\":%s", f->key, f->i ? "true" : "false");
        if (e == ERR_LIMIT) b->len = before; /* drop what does not fit, keep the line valid */
    }
    return ERR_OK;
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
    struct buf b;
    buf_init(&b, LINE_MAX_BYTES);
    if (format_line(&b, level, msg, fields) == ERR_OK) {
        b.max += 2;
        if (buf_appendz(&b, "}\n") == ERR_OK) {
            ssize_t n = write(STDERR_FILENO, b.data, b.len);
            (void)n; /* nowhere left to say so */
        }
    }
    buf_done(&b);
}
