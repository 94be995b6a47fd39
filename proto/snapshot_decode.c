/* SPDX-License-Identifier: Apache-2.0 */
/* Reading members of JSON objects with bounds; see the header. The decoder's thread. */
#include "proto/snapshot_decode.h"

#include <stdarg.h>
#include <stdio.h>

void dec_problem(struct snap_decoder *d, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    d->problems++;
    if (d->fn != NULL) d->fn(d->ctx, d->pointer, text);
}

static void pointer_add(struct snap_decoder *d, const char *p, size_t n)
{
    if (n >= DEC_POINTER_MAX - d->pointer_n) return; /* cut: still names the place roughly */
    memcpy(d->pointer + d->pointer_n, p, n);
    d->pointer_n += n;
    d->pointer[d->pointer_n] = '\0';
}

size_t dec_enter(struct snap_decoder *d, struct str key)
{
    size_t mark = d->pointer_n;
    pointer_add(d, "/", 1);
    for (size_t i = 0; i < key.n && i < 128; i++) {
        if (key.p[i] == '~') {
            pointer_add(d, "~0", 2);
        } else if (key.p[i] == '/') {
            pointer_add(d, "~1", 2);
        } else {
            pointer_add(d, key.p + i, 1);
        }
    }
    return mark;
}

size_t dec_enter_index(struct snap_decoder *d, size_t i)
{
    char number[24];
    int n = snprintf(number, sizeof(number), "%zu", i);
    return dec_enter(d, str_n(number, (size_t)n));
}

void dec_leave(struct snap_decoder *d, size_t mark)
{
    d->pointer_n = mark;
    d->pointer[mark] = '\0';
}

void dec_problem_at(struct snap_decoder *d, const char *key, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    size_t mark = dec_enter(d, str_of(key));
    dec_problem(d, "%s", text);
    dec_leave(d, mark);
}

void *dec_alloc(struct snap_decoder *d, size_t n, size_t size)
{
    void *p = size == 0 || n <= SIZE_MAX / size ? arena_calloc(d->arena, n * size) : NULL;
    if (p == NULL) d->out_of_memory = true;
    return p;
}

struct str dec_copy(struct snap_decoder *d, struct str s)
{
    const char *p = arena_dupz(d->arena, s);
    if (p != NULL) return str_n(p, s.n);
    d->out_of_memory = true;
    return STR("");
}

struct str dec_copy_lower(struct snap_decoder *d, struct str s)
{
    char *p = arena_dupz(d->arena, s);
    if (p == NULL) {
        d->out_of_memory = true;
        return STR("");
    }
    for (size_t i = 0; i < s.n; i++)
        if (p[i] >= 'A' && p[i] <= 'Z') p[i] = (char)(p[i] | 0x20);
    return str_n(p, s.n);
}

const struct json *dec_member(const struct json *o, const char *key)
{
    const struct json *m = json_get(o, key);
    return json_is(m, JSON_NULL) ? NULL : m;
}

/* NULL when it is fine. */
static const char *text_problem(struct str s)
{
    if (!str_is_utf8(s)) return "must be UTF-8";
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return "must not hold control characters";
    return NULL;
}

struct str dec_text(struct snap_decoder *d, const struct json *o, const char *key, unsigned flags,
                    size_t min, size_t max)
{
    const struct json *m = dec_member(o, key);
    if (m == NULL) {
        if ((flags & DEC_REQUIRED) != 0) dec_problem_at(d, key, "is required");
        return STR_NULL;
    }
    struct str s = json_str(m);
    const char *problem = s.p != NULL ? text_problem(s) : NULL;
    if (s.p == NULL) {
        dec_problem_at(d, key, "must be a string");
    } else if (s.n < min) {
        dec_problem_at(d, key, min == 1 ? "must not be empty" : "must be at least %zu bytes long",
                       min);
    } else if (s.n > max) {
        dec_problem_at(d, key, "must be at most %zu bytes long", max);
    } else if (problem != NULL) {
        dec_problem_at(d, key, "%s", problem);
    } else {
        return dec_copy(d, s);
    }
    return STR_NULL;
}

static bool is_id(struct str s)
{
    if (s.n == 0 || s.n > 64) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_'))
            return false;
    }
    return true;
}

struct str dec_id(struct snap_decoder *d, const struct json *o, const char *key)
{
    struct str s = dec_text(d, o, key, DEC_REQUIRED, 1, 64);
    if (s.p != NULL && !is_id(s)) dec_problem_at(d, key, "must be an identifier");
    return s.p != NULL ? s : STR("");
}

struct str dec_slug(struct snap_decoder *d, const struct json *o)
{
    struct str s = dec_text(d, o, "slug", DEC_REQUIRED, 0, SIZE_MAX);
    if (s.p != NULL && !str_is_slug(s))
        dec_problem_at(d, "slug", "must be 1 to 63 characters of a-z, 0-9 and -");
    return s.p != NULL ? s : STR("");
}

bool dec_bool(struct snap_decoder *d, const struct json *o, const char *key, bool def)
{
    bool v = def;
    if (dec_member(o, key) != NULL && json_get_bool(o, key, &v) != ERR_OK)
        dec_problem_at(d, key, "must be true or false");
    return v;
}

uint64_t dec_u64(struct snap_decoder *d, const struct json *o, const char *key, unsigned flags,
                 uint64_t def, uint64_t min, uint64_t max)
{
    uint64_t v = def;
    if (dec_member(o, key) == NULL) {
        if ((flags & DEC_REQUIRED) != 0) dec_problem_at(d, key, "is required");
    } else if (json_get_u64(o, key, &v) != ERR_OK || v < min || v > max) {
        dec_problem_at(d, key, "must be a whole number from %llu to %llu", (unsigned long long)min,
                       (unsigned long long)max);
        v = def;
    }
    return v;
}

int64_t dec_i64(struct snap_decoder *d, const struct json *o, const char *key, int64_t def,
                int64_t min, int64_t max)
{
    int64_t v = def;
    if (dec_member(o, key) == NULL) return def;
    if (json_get_i64(o, key, &v) != ERR_OK || v < min || v > max) {
        dec_problem_at(d, key, "must be a whole number from %lld to %lld", (long long)min,
                       (long long)max);
        v = def;
    }
    return v;
}

int dec_word(struct snap_decoder *d, const struct json *o, const char *key,
             const char *const *words, size_t n, int def)
{
    const struct json *m = dec_member(o, key);
    struct str s = json_str(m);
    if (m == NULL) {
        if (def < 0) dec_problem_at(d, key, "is required");
        return MAX(def, 0);
    }
    for (size_t i = 0; s.p != NULL && i < n; i++)
        if (str_eqz(s, words[i])) return (int)i;
    char list[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                                 words[i]);
    dec_problem_at(d, key, "must be one of: %s", list);
    return MAX(def, 0);
}

struct snap_strings dec_strings(struct snap_decoder *d, const struct json *o, const char *key,
                                size_t max_n, size_t max_len, bool (*ok)(struct str),
                                const char *must)
{
    struct snap_strings none = { NULL, 0 };
    const struct json *list = dec_member(o, key);
    if (list == NULL) return none;
    size_t n = json_len(list), i = 0;
    if (!json_is(list, JSON_ARRAY) || n > max_n) {
        dec_problem_at(d, key, "must be a list of at most %zu strings", max_n);
        return none;
    }
    if (n == 0) return none;
    struct str *v = dec_alloc(d, n, sizeof(*v));
    if (v == NULL) return none;
    size_t mark = dec_enter(d, str_of(key));
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it), i++) {
        struct str s = json_str(it);
        size_t inner = dec_enter_index(d, i);
        if (s.p == NULL || s.n == 0 || s.n > max_len) {
            dec_problem(d, "must be a string of 1 to %zu bytes", max_len);
        } else if (text_problem(s) != NULL) {
            dec_problem(d, "%s", text_problem(s));
        } else if (ok != NULL && !ok(s)) {
            dec_problem(d, "%s", must);
        } else {
            v[i] = dec_copy(d, s);
        }
        dec_leave(d, inner);
    }
    dec_leave(d, mark);
    return (struct snap_strings){ v, n };
}

struct snap_strings dec_models(struct snap_decoder *d, const struct json *o, const char *key)
{
    return dec_strings(d, o, key, 128, DEC_MODEL_MAX, NULL, "");
}

void dec_known(struct snap_decoder *d, const struct json *o, const char *const *keys)
{
    if (!d->strict) return;
    for (const struct json *m = json_first(o); m != NULL; m = json_next(m)) {
        bool known = false;
        for (size_t i = 0; keys[i] != NULL && !known; i++) known = str_eqz(json_key(m), keys[i]);
        if (known) continue;
        size_t mark = dec_enter(d, json_key(m));
        dec_problem(d, "is not known");
        dec_leave(d, mark);
    }
}

void dec_absent(struct snap_decoder *d, const struct json *o, const char *key, const char *why)
{
    if (d->strict && dec_member(o, key) != NULL) dec_problem_at(d, key, "%s", why);
}

bool dec_is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) return false;
    }
    return s.n > 0;
}

/* --- time --- */

/* n decimal digits at *s, moved behind them. */
static bool digits(struct str *s, size_t n, uint64_t *ret)
{
    if (s->n < n || str_to_u64(str_n(s->p, n), ret) != ERR_OK) return false;
    *s = str_n(s->p + n, s->n - n);
    return true;
}

static bool skip(struct str *s, const char *one_of)
{
    if (s->n == 0 || s->p[0] == '\0' || strchr(one_of, s->p[0]) == NULL) return false;
    *s = str_n(s->p + 1, s->n - 1);
    return true;
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar (year ≥ 1970). */
static uint64_t days_to(uint64_t year, uint64_t month, uint64_t day)
{
    static const unsigned before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
    uint64_t y = year - 1;
    uint64_t days = year * 365 + y / 4 - y / 100 + y / 400;
    const uint64_t epoch = 1970ull * 365 + 1969 / 4 - 1969 / 100 + 1969 / 400;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days - epoch + before[month - 1] + (leap && month > 2 ? 1 : 0) + day - 1;
}

static bool date_is_valid(uint64_t year, uint64_t month, uint64_t day)
{
    static const unsigned lengths[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > lengths[month - 1]) return false;
    return !(month == 2 && day == 29 && !leap);
}

enum err dec_parse_time(struct str s, uint64_t *ret_ms)
{
    uint64_t year, month, day, hour, minute, second, ms = 0, off_h = 0, off_m = 0;
    if (!digits(&s, 4, &year) || !skip(&s, "-") || !digits(&s, 2, &month) || !skip(&s, "-") ||
        !digits(&s, 2, &day) || !skip(&s, "Tt ") || !digits(&s, 2, &hour) || !skip(&s, ":") ||
        !digits(&s, 2, &minute) || !skip(&s, ":") || !digits(&s, 2, &second))
        return ERR_INVALID;
    if (!date_is_valid(year, month, day) || hour > 23 || minute > 59 || second > 60)
        return ERR_INVALID;
    if (skip(&s, ".")) {
        size_t n = 0;
        for (; s.n > 0 && s.p[0] >= '0' && s.p[0] <= '9'; n++, s.p++, s.n--)
            if (n < 3) ms += (uint64_t)(s.p[0] - '0') * (n == 0 ? 100 : n == 1 ? 10 : 1);
        if (n == 0) return ERR_INVALID;
    }
    bool west = s.n > 0 && s.p[0] == '-';
    if (!skip(&s, "Zz")) {
        if (!skip(&s, "+-") || !digits(&s, 2, &off_h) || !skip(&s, ":") || !digits(&s, 2, &off_m) ||
            off_h > 23 || off_m > 59)
            return ERR_INVALID;
    }
    if (s.n != 0) return ERR_INVALID;
    uint64_t at = ((days_to(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    uint64_t offset = (off_h * 60 + off_m) * 60;
    if (!west && offset > at) return ERR_INVALID;
    *ret_ms = (west ? at + offset : at - offset) * 1000 + ms;
    return ERR_OK;
}

enum err snapshot_parse_window(struct str s, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
    uint64_t n;
    size_t len = 0;
    while (len < s.n && s.p[len] >= '0' && s.p[len] <= '9') len++;
    if (len == 0 || len > 10 || str_to_u64(str_n(s.p, len), &n) != ERR_OK) return ERR_INVALID;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (!str_eqz(str_n(s.p + len, s.n - len), units[i].unit)) continue;
        *ret_ms = n * units[i].ms;
        return ERR_OK;
    }
    return ERR_INVALID;
}
