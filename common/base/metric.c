/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metric.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/map.h"

enum { DEFAULT_MAX_SERIES = 1000, LABELS_TEXT_MAX = 4096, KEY_MAX = 1024, RECENT_BITS = 8 };

struct metric {
    const struct metric_def *def;
    _Atomic double value; /* of a histogram: the sum */
    _Atomic uint64_t count;
    _Atomic uint64_t buckets[METRIC_MAX_BUCKETS];
    size_t buckets_len;
    struct metric *next; /* in order of creation, per family */
    struct str key;      /* the same in every set; behind the text */
    char labels[];       /* {a="x",b="y"} or "" */
};

struct family {
    struct map series; /* key -> metric */
    struct metric *first, **last;
};

struct metrics {
    const struct metric_def *defs;
    size_t n;
    pthread_mutex_t lock; /* guards the families' maps and lists, not the values */
    struct family *families;
    struct metric *_Atomic recent[1 << RECENT_BITS]; /* that were asked for, by a rough hash */
};

struct metrics *metrics_new(const struct metric_def *defs, size_t n)
{
    struct metrics *m = xcalloc(1, sizeof *m);
    m->defs = defs;
    m->n = n;
    m->families = xcalloc(n, sizeof *m->families);
    pthread_mutex_init(&m->lock, NULL);
    for (size_t i = 0; i < n; i++) {
        ASSERT(defs[i].type != METRIC_HISTOGRAM_OF || defs[i].max_series < n);
        map_init(&m->families[i].series,
                 (defs[i].max_series > 0 ? defs[i].max_series : DEFAULT_MAX_SERIES) + 1);
        m->families[i].last = &m->families[i].first;
    }
    return m;
}

void metrics_free(struct metrics *m)
{
    if (m == NULL) return;
    for (size_t i = 0; i < m->n; i++) {
        for (struct metric *s = m->families[i].first, *next; s != NULL; s = next) {
            next = s->next;
            free(s);
        }
        map_done(&m->families[i].series);
    }
    pthread_mutex_destroy(&m->lock);
    free(m->families);
    free(m);
}

static size_t labels_len(const struct metric_def *d)
{
    size_t n = 0;
    while (n < METRIC_MAX_LABELS && d->labels[n] != NULL) n++;
    return n;
}

static enum err append_value(struct buf *b, struct str v)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < v.n && e == ERR_OK; i++) {
        if (v.p[i] == '\\' || v.p[i] == '"')
            e = buf_printf(b, "\\%c", v.p[i]);
        else if (v.p[i] == '\n')
            e = buf_appendz(b, "\\n");
        else
            e = buf_append_char(b, v.p[i]);
    }
    return e;
}

static enum err label_text(const struct metric_def *d, const struct str *values, struct buf *b)
{
    size_t n = labels_len(d);
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        e = buf_printf(b, "%s%s=\"", i == 0 ? "{" : ",", d->labels[i]);
        if (e == ERR_OK) e = append_value(b, values != NULL ? values[i] : STR("other"));
        if (e == ERR_OK) e = buf_append_char(b, '"');
    }
    if (e == ERR_OK && n > 0) e = buf_append_char(b, '}');
    return e;
}

/* What a series is found by: its values with a NUL behind each, which is made without the effort of
 * the text. False: too long. */
static bool make_key(const struct metric_def *d, const struct str *values, char out[KEY_MAX],
                     struct str *ret)
{
    size_t n = labels_len(d), at = 0;
    for (size_t i = 0; i < n; i++) {
        struct str v = values != NULL ? values[i] : STR("other");
        if (v.n >= KEY_MAX - at) return false;
        if (v.n > 0) memcpy(out + at, v.p, v.n);
        at += v.n;
        out[at++] = '\0';
    }
    *ret = str_n(out, at);
    return true;
}

/* With the lock. NULL: the text of its labels is too long, or there are too many. */
static struct metric *add_series(struct family *f, const struct metric_def *d,
                                 const struct str *values, struct str key)
{
    struct buf text;
    struct metric *s = NULL;
    buf_init(&text, LABELS_TEXT_MAX);
    if (label_text(d, values, &text) != ERR_OK) goto out;
    s = xcalloc(1, sizeof *s + text.len + 1 + key.n);
    s->def = d;
    if (text.len > 0) memcpy(s->labels, text.data, text.len);
    if (key.n > 0) memcpy(s->labels + text.len + 1, key.p, key.n);
    s->key = str_n(s->labels + text.len + 1, key.n);
    while (s->buckets_len < METRIC_MAX_BUCKETS && d->buckets[s->buckets_len] != 0) s->buckets_len++;
    if (map_put(&f->series, key, s, NULL) == ERR_OK) {
        *f->last = s;
        f->last = &s->next;
    } else {
        free(s);
        s = NULL;
    }
out:
    buf_done(&text);
    return s;
}

/* Where a series stands among the recent ones: of the end of each value. */
static size_t recent_place(size_t which, const struct str *values, size_t n)
{
    uint64_t h = which + 1;
    for (size_t i = 0; i < n; i++) {
        uint64_t end = hash_tail(values[i].p, values[i].n);
        h = (h ^ end ^ values[i].n << 56) * 0x9e3779b97f4a7c15u;
    }
    return h * 0x9e3779b97f4a7c15u >> (64 - RECENT_BITS);
}

static bool has_values(const struct metric *s, const struct str *values, size_t n)
{
    const char *at = s->key.p, *end = at + s->key.n;
    for (size_t i = 0; i < n; i++) {
        struct str v = values[i];
        if ((size_t)(end - at) <= v.n || (v.n > 0 && memcmp(at, v.p, v.n) != 0) || at[v.n] != '\0')
            return false;
        at += v.n + 1;
    }
    return at == end;
}

static struct metric *look_up(struct metrics *m, size_t which, const struct str *values);

struct metric *metrics_get(struct metrics *m, size_t which, const struct str *values)
{
    ASSERT(which < m->n);
    const struct metric_def *d = &m->defs[which];
    size_t n = values != NULL ? labels_len(d) : 0, place = recent_place(which, values, n);
    struct metric *s = atomic_load_explicit(&m->recent[place], memory_order_acquire);
    if (s != NULL && s->def == d && has_values(s, values, n)) return s;
    s = look_up(m, which, values);
    atomic_store_explicit(&m->recent[place], s, memory_order_release);
    return s;
}

static struct metric *look_up(struct metrics *m, size_t which, const struct str *values)
{
    const struct metric_def *d = &m->defs[which];
    struct family *f = &m->families[which];
    char room[KEY_MAX];
    struct str key;
    bool fits = make_key(d, values, room, &key);

    ASSERT(d->type != METRIC_HISTOGRAM_OF);
    pthread_mutex_lock(&m->lock);
    struct metric *s = fits ? map_get(&f->series, key) : NULL;
    if (s == NULL && fits && f->series.len + 1 < f->series.max) s = add_series(f, d, values, key);
    if (s == NULL) {
        ASSERT(make_key(d, NULL, room, &key));
        s = map_get(&f->series, key);
        if (s == NULL) s = add_series(f, d, NULL, key);
    }
    pthread_mutex_unlock(&m->lock);
    ASSERT(s != NULL);
    return s;
}

static void atomic_add_double(_Atomic double *at, double v)
{
    double old = atomic_load_explicit(at, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(at, &old, old + v, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
}

void metric_add(struct metric *s, double v)
{
    atomic_add_double(&s->value, v);
}

void metric_inc(struct metric *s)
{
    metric_add(s, 1);
}

void metric_set(struct metric *s, double v)
{
    atomic_store_explicit(&s->value, v, memory_order_relaxed);
}

void metric_observe(struct metric *s, double v)
{
    size_t i = 0;
    while (i < s->buckets_len && v > s->def->buckets[i]) i++;
    if (i < s->buckets_len) atomic_fetch_add_explicit(&s->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->count, 1, memory_order_relaxed);
    metric_add(s, v);
}

double metric_value(const struct metric *s)
{
    return atomic_load_explicit(&s->value, memory_order_relaxed);
}

/* --- rendering --- */

struct sum {
    double value;
    uint64_t count, buckets[METRIC_MAX_BUCKETS];
};

static void add_up(struct metrics *const *sets, size_t n, size_t which, struct str key,
                   struct sum *sum)
{
    for (size_t k = 0; k < n; k++) {
        struct metric *s = map_get(&sets[k]->families[which].series, key);
        if (s == NULL) continue;
        sum->value += metric_value(s);
        sum->count += atomic_load_explicit(&s->count, memory_order_relaxed);
        for (size_t i = 0; i < s->buckets_len; i++)
            sum->buckets[i] += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
    }
}

static enum err number(struct buf *out, double v)
{
    if (v == floor(v) && fabs(v) < 1e15) return buf_printf(out, " %.0f\n", v);
    return buf_printf(out, " %.15g\n", v);
}

/* bounds: of the def that is counted, whose other name d may be. */
static enum err histogram(const struct metric_def *d, const double *bounds, const char *labels,
                          const struct sum *sum, struct buf *out)
{
    size_t len = strlen(labels);
    int inner = len > 0 ? (int)len - 2 : 0; /* without { and } */
    uint64_t below = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i <= METRIC_MAX_BUCKETS && e == ERR_OK; i++) {
        char bound[32] = "+Inf";
        bool last = i == METRIC_MAX_BUCKETS || bounds[i] == 0;
        if (!last) {
            below += sum->buckets[i];
            (void)snprintf(bound, sizeof bound, "%.15g", bounds[i]);
        }
        e = buf_printf(out, "%s_bucket{%.*s%sle=\"%s\"} %llu\n", d->name, inner, labels + (len > 0),
                       inner > 0 ? "," : "", bound,
                       (unsigned long long)(last ? sum->count : below));
        if (last) break;
    }
    if (e == ERR_OK) e = buf_printf(out, "%s_sum%s %.15g\n", d->name, labels, sum->value);
    if (e == ERR_OK)
        e = buf_printf(out, "%s_count%s %llu\n", d->name, labels, (unsigned long long)sum->count);
    return e;
}

static bool seen_earlier(struct metrics *const *sets, size_t k, size_t which, struct str key)
{
    for (size_t i = 0; i < k; i++)
        if (map_get(&sets[i]->families[which].series, key) != NULL) return true;
    return false;
}

/* The text of a series' labels under the names of d. */
static enum err labels_under(const struct metric_def *d, const struct metric *s, struct buf *out)
{
    struct str values[METRIC_MAX_LABELS];
    const char *at = s->key.p;
    for (size_t i = 0; i < labels_len(d); i++) {
        values[i] = str_of(at);
        at += values[i].n + 1;
    }
    buf_clear(out);
    return label_text(d, values, out);
}

static enum err render_series(const struct metric_def *d, const struct metric *s,
                              const struct sum *sum, struct buf *scratch, struct buf *out)
{
    const char *labels = s->labels;
    enum err e = ERR_OK;
    if (d != s->def) {
        e = labels_under(d, s, scratch);
        if (e == ERR_OK) labels = buf_z(scratch);
    }
    if (e == ERR_OK && d->type >= METRIC_HISTOGRAM)
        return histogram(d, s->def->buckets, labels, sum, out);
    if (e == ERR_OK) e = buf_printf(out, "%s%s", d->name, labels);
    return e == ERR_OK ? number(out, sum->value) : e;
}

static enum err render_family(struct metrics *const *sets, size_t n, size_t family, struct buf *out)
{
    static const char *const types[] = { "counter", "gauge", "histogram", "histogram" };
    const struct metric_def *d = &sets[0]->defs[family];
    size_t which = d->type == METRIC_HISTOGRAM_OF ? d->max_series : family;
    struct buf scratch;
    buf_init(&scratch, LABELS_TEXT_MAX);
    enum err e = buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", d->name, d->help, d->name,
                            types[d->type]);
    for (size_t k = 0; k < n; k++) {
        for (struct metric *s = sets[k]->families[which].first; s != NULL && e == ERR_OK;
             s = s->next) {
            struct sum sum = { 0 };
            if (seen_earlier(sets, k, which, s->key)) continue;
            add_up(sets, n, which, s->key, &sum);
            e = render_series(d, s, &sum, &scratch, out);
        }
    }
    buf_done(&scratch);
    return e;
}

enum err metrics_render(struct metrics *const *sets, size_t n, struct buf *out)
{
    enum err e = ERR_OK;
    for (size_t k = 0; k < n; k++) pthread_mutex_lock(&sets[k]->lock);
    for (size_t i = 0; n > 0 && i < sets[0]->n && e == ERR_OK; i++)
        e = render_family(sets, n, i, out);
    for (size_t k = n; k-- > 0;) pthread_mutex_unlock(&sets[k]->lock);
    return e;
}

enum err metrics_markdown(const struct metric_def *defs, size_t n, struct buf *out)
{
    static const char *const types[] = { "counter", "gauge", "histogram", "histogram" };
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        size_t labels = labels_len(&defs[i]);
        e = buf_printf(out, "| `%s` | %s | ", defs[i].name, types[defs[i].type]);
        for (size_t k = 0; k < labels && e == ERR_OK; k++)
            e = buf_printf(out, "%s%s", k > 0 ? ", " : "", defs[i].labels[k]);
        if (e == ERR_OK) e = buf_printf(out, " | %s |\n", defs[i].help);
    }
    return e;
}
