/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading compiled time zones (TZif, RFC 8536): the 64-bit table and the rule behind it. A file is
 * input like any other: bounded, and refused when it is not what it should be. Any thread.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/zone_impl.h"

enum {
    HEAD = 44,
    MOST_CHANGES = 4000,
    MOST_TYPES = 256,
    OFFSET_MOST = 26 * 3600, /* either way */
    RULE_HOURS_MOST = 167
};
#define TIME_MOST (INT64_C(1) << 60)
#define FOLDER "/usr/share/zoneinfo"

struct reader {
    const unsigned char *p;
    size_t n;
};

static const unsigned char *take(struct reader *r, size_t n)
{
    const unsigned char *p = r->p;
    if (r->n < n) return NULL;
    r->p += n;
    r->n -= n;
    return p;
}

static uint64_t big_endian(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

static int32_t signed32(const unsigned char *p)
{
    return (int32_t)(uint32_t)big_endian(p, 4);
}

struct counts {
    size_t utc, std, leaps, changes, types, chars;
    int version;
};

static bool read_head(struct reader *r, struct counts *ret)
{
    const unsigned char *p = take(r, HEAD);
    if (p == NULL || memcmp(p, "TZif", 4) != 0) return false;
    *ret = (struct counts){ .version = p[4],
                            .utc = big_endian(p + 20, 4),
                            .std = big_endian(p + 24, 4),
                            .leaps = big_endian(p + 28, 4),
                            .changes = big_endian(p + 32, 4),
                            .types = big_endian(p + 36, 4),
                            .chars = big_endian(p + 40, 4) };
    return ret->utc <= MOST_TYPES && ret->std <= MOST_TYPES && ret->leaps <= MOST_CHANGES &&
           ret->changes <= MOST_CHANGES && ret->types >= 1 && ret->types <= MOST_TYPES &&
           ret->chars <= ZONE_FILE_MAX;
}

/* --- the rule: a POSIX TZ text, such as CET-1CEST,M3.5.0,M10.5.0/3 --- */

static bool skip(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c) return false;
    *s = str_n(s->p + 1, s->n - 1);
    return true;
}

static bool number(struct str *s, int most, int *ret)
{
    int v = 0;
    size_t n = 0;
    for (; n < s->n && n < 4 && s->p[n] >= '0' && s->p[n] <= '9'; n++) v = v * 10 + s->p[n] - '0';
    if (n == 0 || v > most) return false;
    *s = str_n(s->p + n, s->n - n);
    *ret = v;
    return true;
}

static bool zone_word(struct str *s)
{
    bool quoted = skip(s, '<');
    size_t n = 0;
    for (; n < s->n; n++) {
        char c = s->p[n];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        bool other = quoted && ((c >= '0' && c <= '9') || c == '+' || c == '-');
        if (!letter && !other) break;
    }
    if (n == 0) return false;
    *s = str_n(s->p + n, s->n - n);
    return !quoted || skip(s, '>');
}

/* [+-]hh[:mm[:ss]] */
static bool time_of_day(struct str *s, int hours_most, int32_t *ret)
{
    int h = 0, m = 0, sec = 0;
    bool minus = skip(s, '-');
    if (!minus) (void)skip(s, '+');
    if (!number(s, hours_most, &h)) return false;
    if (skip(s, ':') && !number(s, 59, &m)) return false;
    if (skip(s, ':') && !number(s, 59, &sec)) return false;
    int32_t v = h * 3600 + m * 60 + sec;
    *ret = minus ? -v : v;
    return true;
}

static bool read_rule(struct str *s, struct zone_rule *ret)
{
    struct zone_rule r = { .seconds = 7200 };
    if (!skip(s, ',')) return false;
    if (skip(s, 'M')) {
        r.kind = ZONE_RULE_MONTH;
        if (!number(s, 12, &r.month) || r.month == 0 || !skip(s, '.') || !number(s, 5, &r.week) ||
            r.week == 0 || !skip(s, '.') || !number(s, 6, &r.day))
            return false;
    } else if (skip(s, 'J')) {
        r.kind = ZONE_RULE_JULIAN;
        if (!number(s, 365, &r.day) || r.day == 0) return false;
    } else {
        r.kind = ZONE_RULE_DAY;
        if (!number(s, 365, &r.day)) return false;
    }
    if (skip(s, '/') && !time_of_day(s, RULE_HOURS_MOST, &r.seconds)) return false;
    *ret = r;
    return true;
}

static bool read_tail(struct str s, struct zone_tail *ret)
{
    struct zone_tail t = { 0 };
    int32_t west;
    if (!zone_word(&s) || !time_of_day(&s, 24, &west)) return false;
    t.std_offset = -west;
    if (s.n > 0) {
        t.has_dst = true;
        t.dst_offset = t.std_offset + 3600;
        if (!zone_word(&s)) return false;
        if (s.n > 0 && s.p[0] != ',') {
            if (!time_of_day(&s, 24, &west)) return false;
            t.dst_offset = -west;
        }
        if (!read_rule(&s, &t.to_dst) || !read_rule(&s, &t.to_std)) return false;
    }
    if (s.n > 0) return false;
    *ret = t;
    return true;
}

/* --- the table --- */

static enum err read_table(struct reader *r, const struct counts *c, struct zone *z)
{
    const unsigned char *times = take(r, c->changes * 8), *which = take(r, c->changes);
    const unsigned char *types = take(r, c->types * 6), *rest;
    rest = take(r, c->chars + c->leaps * 12 + c->std + c->utc);
    if (times == NULL || which == NULL || types == NULL || rest == NULL) return ERR_INVALID;
    if (c->leaps > 0) return ERR_INVALID; /* of a clock that counts leap seconds: not ours */
    for (size_t i = 0; i < c->types; i++) {
        int32_t offset = signed32(types + i * 6);
        if (offset < -OFFSET_MOST || offset > OFFSET_MOST) return ERR_INVALID;
    }
    z->first_offset = signed32(types);
    z->changes = calloc(c->changes + 1, sizeof *z->changes);
    if (z->changes == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < c->changes; i++) {
        int64_t at = (int64_t)big_endian(times + i * 8, 8);
        if (which[i] >= c->types || at < -TIME_MOST || at > TIME_MOST) return ERR_INVALID;
        if (i > 0 && at <= z->changes[i - 1].at) return ERR_INVALID;
        z->changes[i] = (struct zone_change){ at, signed32(types + which[i] * 6u) };
    }
    z->changes_n = c->changes;
    return ERR_OK;
}

static enum err read_all(struct reader *r, struct zone *z)
{
    struct counts c;
    if (!read_head(r, &c) || c.version < '2') return ERR_INVALID;
    /* the first table has 32-bit times, for readers of old */
    size_t old = c.changes * 5 + c.types * 6 + c.chars + c.leaps * 8 + c.std + c.utc;
    if (take(r, old) == NULL || !read_head(r, &c)) return ERR_INVALID;
    enum err e = read_table(r, &c, z);
    if (e != ERR_OK) return e;
    struct str tail = str_n((const char *)r->p, r->n);
    if (tail.n < 2 || tail.p[0] != '\n' || tail.p[tail.n - 1] != '\n') return ERR_INVALID;
    tail = str_n(tail.p + 1, tail.n - 2);
    z->has_tail = tail.n > 0;
    return !z->has_tail || read_tail(tail, &z->tail) ? ERR_OK : ERR_INVALID;
}

enum err zone_parse(const unsigned char *data, size_t n, struct zone **ret)
{
    struct reader r = { data, n };
    struct zone *z = calloc(1, sizeof *z);
    if (z == NULL) return ERR_NOMEM;
    enum err e = read_all(&r, z);
    if (e == ERR_OK)
        *ret = z;
    else
        zone_free(z);
    return e;
}

void zone_free(struct zone *z)
{
    if (z == NULL) return;
    free(z->changes);
    free(z);
}

/* --- files --- */

bool zone_name_is_valid(struct str name)
{
    if (name.n == 0 || name.n > ZONE_NAME_MAX || name.p[0] == '/' || name.p[name.n - 1] == '/')
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && (c == '\0' || strchr("_+-/", c) == NULL)) return false;
        if (c == '/' && name.p[i - 1] == '/') return false;
    }
    return true;
}

static enum err load_file(const char *path, struct zone **ret)
{
    enum err e = ERR_NOT_FOUND;
    unsigned char *data = malloc(ZONE_FILE_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t n = 0;
    ssize_t got = 1;
    if (data == NULL) e = ERR_NOMEM;
    while (fd >= 0 && data != NULL && n <= ZONE_FILE_MAX && got > 0) {
        got = read(fd, data + n, ZONE_FILE_MAX + 1 - n);
        if (got > 0) n += (size_t)got;
    }
    if (fd >= 0 && data != NULL)
        e = got == 0 && n <= ZONE_FILE_MAX ? zone_parse(data, n, ret) : ERR_INVALID;
    if (fd >= 0) close(fd);
    free(data);
    return e;
}

enum err zone_load(struct str name, struct zone **ret)
{
    char path[sizeof FOLDER + 1 + ZONE_NAME_MAX];
    if (!zone_name_is_valid(name)) return ERR_NOT_FOUND;
    if (str_eqz(name, "UTC")) {
        struct zone *z = calloc(1, sizeof *z);
        if (z == NULL) return ERR_NOMEM;
        *ret = z;
        return ERR_OK;
    }
    (void)snprintf(path, sizeof path, FOLDER "/%.*s", STR_ARG(name));
    return load_file(path, ret);
}

bool zone_exists(struct str name)
{
    struct zone *z = NULL;
    if (zone_load(name, &z) != ERR_OK) return false;
    zone_free(z);
    return true;
}
