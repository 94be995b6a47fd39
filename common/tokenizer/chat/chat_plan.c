/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "tokenizer/chat/chat_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tokenizer/added.h"

enum {
    PLANS = 32,           /* that are kept, each at most some 40 KB */
    SEEN = 64,            /* forms that came once */
    KEY_MAX = 16 << 10,   /* bytes: tools and all */
    TRIES = 4,            /* plans of one form, by what their texts answer */
    TEXTS_MAX = 64 << 10, /* bytes: longer ones are streamed into the counter */
    ARENA_LEFT = 4 << 20, /* bytes of scratch that a recording leaves for other texts */
};

struct plan {
    char *key; /* NULL: the place is free */
    size_t key_n;
    struct jinja_plan *plan; /* NULL: it could not be recorded */
    bool is_cut;             /* for the vocabulary with this checksum */
    uint64_t checksum;
    uint64_t tokens; /* of what the plan leaves out when it is cut */
};

struct chat_plans {
    struct plan plans[PLANS];
    uint64_t seen[SEEN];
    size_t next; /* the place that is used next */
};

struct chat_plans *chat_plans_new(void)
{
    return calloc(1, sizeof(struct chat_plans));
}

static void drop(struct plan *p)
{
    free(p->key);
    jinja_plan_free(p->plan);
    *p = (struct plan){ .key = NULL };
}

void chat_plans_free(struct chat_plans *p)
{
    if (p == NULL) return;
    for (size_t i = 0; i < PLANS; i++) drop(&p->plans[i]);
    free(p);
}

/* --- a request's form --- */

struct cursor {
    const char *p, *end;
    struct arena *a;
};

static void skip_space(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\r' || *c->p == '\t'))
        c->p++;
}

static bool take(struct cursor *c, char want)
{
    skip_space(c);
    if (c->p == c->end || *c->p != want) return false;
    c->p++;
    return true;
}

static bool take_string(struct cursor *c, struct str *ret)
{
    struct jv v;
    skip_space(c);
    if (c->p == c->end || *c->p != '"' || jv_read_string(c->a, &c->p, c->end, &v) != ERR_OK)
        return false;
    *ret = jv_text(v);
    return true;
}

/* {"role": ..., "content": ...} in either order and with nothing else. */
static bool take_message(struct cursor *c, struct str *role, struct str *content)
{
    bool has_role = false, has_content = false;
    struct str key;
    if (!take(c, '{')) return false;
    for (int i = 0; i < 2; i++) {
        if ((i > 0 && !take(c, ',')) || !take_string(c, &key) || !take(c, ':')) return false;
        bool is_role = str_eqz(key, "role");
        if (!is_role && !str_eqz(key, "content")) return false;
        if (!take_string(c, is_role ? role : content)) return false;
        *(is_role ? &has_role : &has_content) = true;
    }
    return has_role && has_content && take(c, '}');
}

/* What a valid JSON string means. */
static bool text_of_string(struct arena *a, struct str raw, struct str *ret)
{
    struct cursor c = { raw.p, raw.p + raw.n, a };
    if (memchr(raw.p, '\\', raw.n) != NULL) return take_string(&c, ret);
    *ret = str_n(raw.p + 1, raw.n - 2);
    return true;
}

/* Texts follow each other with their lengths, so that no two forms have the same key. */
static bool add_key(struct chat_form *f, struct str s)
{
    uint32_t n = (uint32_t)s.n;
    return s.n <= KEY_MAX && buf_append(&f->key, &n, sizeof n) == ERR_OK &&
           buf_append_str(&f->key, s) == ERR_OK;
}

static bool add_message(struct chat_form *f, struct str role, struct str content)
{
    if (f->n == JINJA_PLAN_GIVEN || !add_key(f, role)) return false;
    f->texts[f->n++] = content;
    f->bytes += content.n;
    return true;
}

static bool add_plain(struct chat_form *f, const struct chat_slices *in, struct arena *a)
{
    for (size_t i = 0; i < in->plain_n; i++) {
        struct str role, content;
        if (!text_of_string(a, in->plain[i].role, &role) ||
            !text_of_string(a, in->plain[i].content, &content) || !add_message(f, role, content))
            return false;
    }
    return true;
}

bool chat_form_read(struct chat_form *f, const struct chat_template *t,
                    const struct chat_slices *in, struct arena *a)
{
    struct cursor c = { in->messages.p, in->messages.p + in->messages.n, a };
    char flags[3] = { (char)in->no_generation_prompt, in->tools.p != NULL, in->kwargs.p != NULL };
    if (in->messages.n > TEXTS_MAX || (in->tools.p != NULL && !t->shows_tools)) return false;
    if (f->key.max == 0) buf_init(&f->key, (size_t)2 * KEY_MAX);
    buf_clear(&f->key);
    f->n = f->bytes = 0;
    if (buf_append(&f->key, t->identity, sizeof t->identity) != ERR_OK ||
        buf_append(&f->key, flags, sizeof flags) != ERR_OK || !add_key(f, in->tools) ||
        !add_key(f, in->kwargs))
        return false;
    if (in->plain_n > 0) return add_plain(f, in, a);
    if (!take(&c, '[')) return false;
    do {
        struct str role, content;
        if (!take_message(&c, &role, &content) || !add_message(f, role, content)) return false;
    } while (take(&c, ','));
    if (!take(&c, ']')) return false;
    skip_space(&c);
    return c.p == c.end;
}

/* --- plans --- */

static bool is_of(const struct plan *p, const struct chat_form *f)
{
    return p->key != NULL && p->key_n == f->key.len && memcmp(p->key, f->key.data, f->key.len) == 0;
}

bool chat_plans_write(struct chat_plans *p, const struct chat_form *f, struct buf *out)
{
    for (size_t i = 0; i < PLANS; i++)
        if (is_of(&p->plans[i], f) && p->plans[i].plan != NULL &&
            jinja_plan_write(p->plans[i].plan, f->texts, out) == ERR_OK)
            return true;
    return false;
}

static enum err count_cut(const struct plan *p, const struct str *texts, const struct vocab *v,
                          struct buf *room, uint64_t *ret)
{
    size_t ends[JINJA_PLAN_STRETCHES], n = 0, at = 0;
    uint64_t tokens = p->tokens;
    enum err e = jinja_plan_write_cut(p->plan, texts, room, ends, &n);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        uint64_t of_stretch = 0;
        e = token_count(v, str_n(room->data + at, ends[i] - at), SPECIAL_CONTROL, &of_stretch);
        tokens += of_stretch;
        at = ends[i];
    }
    if (e == ERR_OK) *ret = tokens;
    return e;
}

static enum err count_by(const struct plan *p, const struct str *texts, const struct vocab *v,
                         struct buf *room, uint64_t *ret)
{
    buf_clear(room);
    if (p->is_cut && p->checksum == v->h->checksum) return count_cut(p, texts, v, room, ret);
    enum err e = jinja_plan_write(p->plan, texts, room);
    return e == ERR_OK ? token_count(v, buf_str(room), SPECIAL_CONTROL, ret) : e;
}

bool chat_plans_count(struct chat_plans *p, const struct chat_form *f, const struct vocab *v,
                      struct buf *room, uint64_t *ret)
{
    for (size_t i = 0; i < PLANS; i++)
        if (is_of(&p->plans[i], f) && p->plans[i].plan != NULL &&
            count_by(&p->plans[i], f->texts, v, room, ret) == ERR_OK)
            return true;
    return false;
}

/* The text of a message as the template has it: its content, or the only part of that. */
static struct jv *text_of(struct jv message)
{
    struct jv_dict *d = message.dict;
    struct jv *v = d->n >= 2 ? &d->pairs[1].value : NULL;
    if (v != NULL && v->type == JV_LIST && v->list->n == 1 && v->list->items[0].type == JV_DICT &&
        v->list->items[0].dict->n == 2)
        v = &v->list->items[0].dict->pairs[1].value;
    return v != NULL && v->type == JV_STR ? v : NULL;
}

static struct jinja_plan *record(const struct chat_form *f, const struct chat_template *t,
                                 struct arena *a, const struct chat_values *in, struct jv messages,
                                 struct str rendered)
{
    struct jinja_record rec;
    struct jinja_plan *plan = NULL;
    struct buf again;
    if (messages.list->n != f->n) return NULL;
    for (size_t i = 0; i < f->n; i++) {
        struct jv *text = text_of(messages.list->items[i]);
        if (text == NULL || !str_eq(jv_text(*text), f->texts[i])) return NULL;
        *text = jinja_record_given(i);
    }
    jinja_record_init(&rec, f->texts, f->n);
    buf_init(&again, rendered.n + 1);
    enum err e = chat_record(t, a, in, messages, &rec);
    if (e == ERR_OK && a->used + ARENA_LEFT < a->budget) plan = jinja_record_plan(&rec);
    /* What it writes for these texts is known: a plan that writes something else is none. */
    if (plan != NULL && (jinja_plan_write(plan, f->texts, &again) != ERR_OK ||
                         !str_eq(buf_str(&again), rendered))) {
        jinja_plan_free(plan);
        plan = NULL;
    }
    buf_done(&again);
    jinja_record_done(&rec);
    return plan;
}

/* --- cut at added tokens --- */

struct cutting {
    struct added_cuts cuts;
    uint64_t tokens;
};

static bool find_cuts(void *ctx, struct str literal, size_t *ret_from, size_t *ret_to)
{
    const struct cutting *c = ctx;
    return added_cuts_find(&c->cuts, literal, ret_from, ret_to);
}

static enum err count_left_out(void *ctx, struct str text)
{
    struct cutting *c = ctx;
    uint64_t n;
    enum err e = token_count(c->cuts.v, text, SPECIAL_CONTROL, &n);
    if (e == ERR_OK) c->tokens += n;
    return e;
}

/* rendered: what the plan writes for `texts`. A cut plan that counts it otherwise is used whole. */
static void cut(struct plan *p, const struct vocab *v, const struct str *texts, struct str rendered)
{
    struct cutting c = { .tokens = 0 };
    struct buf room;
    uint64_t whole, by_stretches;
    added_cuts_init(&c.cuts, v);
    if (jinja_plan_cut(p->plan, &(struct jplan_cutter){ find_cuts, count_left_out, &c }) != ERR_OK)
        return;
    p->tokens = c.tokens;
    p->checksum = v->h->checksum;
    buf_init(&room, rendered.n + 1);
    p->is_cut = count_cut(p, texts, v, &room, &by_stretches) == ERR_OK &&
                token_count(v, rendered, SPECIAL_CONTROL, &whole) == ERR_OK &&
                whole == by_stretches;
    buf_done(&room);
}

void chat_plans_learn(struct chat_plans *p, const struct chat_form *f,
                      const struct chat_template *t, const struct vocab *v, struct arena *a,
                      const struct chat_values *in, struct jv messages, struct str rendered)
{
    uint64_t hash = hash_bytes(f->key.data, f->key.len), *seen = &p->seen[hash % SEEN];
    size_t had = 0;
    if (*seen != hash) {
        *seen = hash;
        return;
    }
    for (size_t i = 0; i < PLANS; i++)
        if (is_of(&p->plans[i], f) && ++had == TRIES) return;
    struct plan *to = &p->plans[p->next++ % PLANS];
    drop(to);
    to->key = malloc(f->key.len);
    if (to->key == NULL) return;
    memcpy(to->key, f->key.data, f->key.len);
    to->key_n = f->key.len;
    to->plan = record(f, t, a, in, messages, rendered);
    if (to->plan != NULL && v != NULL) cut(to, v, f->texts, rendered);
}
