/* SPDX-License-Identifier: Apache-2.0 */
/* libyaml behind our interface: the only file that includes its header. */
#include "rt/yaml.h"

#include <yaml.h>

#include <stdlib.h>

struct reader {
    yaml_parser_t parser;
    struct why *why;
};

static enum err fail_at(struct reader *r, const yaml_mark_t *at, const char *what)
{
    return why_set(r->why, ERR_INVALID, "line %zu, column %zu: %s", at->line + 1, at->column + 1,
                   what);
}

static enum err next_event(struct reader *r, yaml_event_t *ev)
{
    if (yaml_parser_parse(&r->parser, ev) != 0) return ERR_OK;
    const char *problem = r->parser.problem != NULL ? r->parser.problem : "not valid YAML";
    if (r->parser.error == YAML_MEMORY_ERROR) return ERR_NOMEM;
    return fail_at(r, &r->parser.problem_mark, problem);
}

/* JSON's own grammar of numbers: what YAML's core schema takes beyond it (0x1f, +1, 007, .5) stays
 * text. */
static bool is_number(struct str s)
{
    size_t i = 0, digits = 0;
    if (i < s.n && s.p[i] == '-') i++;
    size_t first = i;
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) digits++;
    if (digits == 0 || (digits > 1 && s.p[first] == '0')) return false;
    if (i < s.n && s.p[i] == '.') {
        size_t from = ++i;
        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9') i++;
        if (i == from) return false;
    }
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i++;
        if (i < s.n && (s.p[i] == '+' || s.p[i] == '-')) i++;
        size_t from = i;
        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9') i++;
        if (i == from) return false;
    }
    return i == s.n;
}

/* The JSON text that a plain scalar stands for; p == NULL when it stands for itself. */
static struct str plain_meaning(struct str s)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL" },
                             *const trues[] = { "true", "True", "TRUE" },
                             *const falses[] = { "false", "False", "FALSE" };
    for (size_t i = 0; i < ARRAY_LEN(nulls); i++)
        if (str_eqz(s, nulls[i])) return STR("null");
    for (size_t i = 0; i < ARRAY_LEN(trues); i++) {
        if (str_eqz(s, trues[i])) return STR("true");
        if (str_eqz(s, falses[i])) return STR("false");
    }
    return is_number(s) ? s : STR_NULL;
}

static enum err read_scalar(struct reader *r, const yaml_event_t *ev, struct json **ret)
{
    struct str s = str_n((const char *)ev->data.scalar.value, ev->data.scalar.length);
    const char *tag = (const char *)ev->data.scalar.tag;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && tag == NULL;
    if (tag != NULL && strcmp(tag, YAML_STR_TAG) != 0)
        return fail_at(r, &ev->start_mark, "tags other than !!str are not taken");
    if (memchr(s.p, '\0', s.n) != NULL)
        return fail_at(r, &ev->start_mark, "a NUL character in a string");
    struct str meaning = plain ? plain_meaning(s) : STR_NULL;
    if (meaning.p != NULL) return json_parse(meaning, meaning.n, ret, r->why);
    *ret = json_new_str(s);
    return ERR_OK;
}

static enum err read_node(struct reader *r, yaml_event_t *ev, int depth, struct json **ret);

static enum err read_sequence(struct reader *r, int depth, struct json **ret)
{
    struct json *list = json_array();
    for (;;) {
        yaml_event_t ev;
        struct json *item;
        enum err e = next_event(r, &ev);
        bool end = e == ERR_OK && ev.type == YAML_SEQUENCE_END_EVENT;
        if (e == ERR_OK && !end) e = read_node(r, &ev, depth + 1, &item);
        if (e == ERR_OK && !end) json_push(list, item);
        if (end) yaml_event_delete(&ev);
        if (end) break;
        if (e != ERR_OK) {
            json_free(list);
            return e;
        }
    }
    *ret = list;
    return ERR_OK;
}

static enum err read_key(struct reader *r, const yaml_event_t *ev, const struct json *o, char **ret)
{
    if (ev->type != YAML_SCALAR_EVENT) return fail_at(r, &ev->start_mark, "a key must be a string");
    struct str key = str_n((const char *)ev->data.scalar.value, ev->data.scalar.length);
    if (memchr(key.p, '\0', key.n) != NULL || ev->data.scalar.anchor != NULL)
        return fail_at(r, &ev->start_mark, "not a key that can be taken");
    char *z = str_dupz(key);
    if (json_get(o, z) != NULL) {
        free(z);
        return fail_at(r, &ev->start_mark, "the key occurs twice");
    }
    *ret = z;
    return ERR_OK;
}

static enum err read_mapping(struct reader *r, int depth, struct json **ret)
{
    struct json *o = json_object();
    for (;;) {
        yaml_event_t ev;
        struct json *value;
        char *key = NULL;
        enum err e = next_event(r, &ev);
        bool end = e == ERR_OK && ev.type == YAML_MAPPING_END_EVENT;
        if (e == ERR_OK && !end) e = read_key(r, &ev, o, &key);
        if (end || key != NULL || e == ERR_INVALID) yaml_event_delete(&ev);
        if (end) break;
        if (e == ERR_OK) e = next_event(r, &ev);
        if (e == ERR_OK) e = read_node(r, &ev, depth + 1, &value);
        if (e == ERR_OK) json_set(o, key, value);
        free(key);
        if (e != ERR_OK) {
            json_free(o);
            return e;
        }
    }
    *ret = o;
    return ERR_OK;
}

/* Takes ev. */
static enum err read_node(struct reader *r, yaml_event_t *ev, int depth, struct json **ret)
{
    enum err e;
    if (depth > JSON_MAX_DEPTH) {
        e = fail_at(r, &ev->start_mark, "nested too deep");
    } else if (ev->type == YAML_SCALAR_EVENT) {
        e = ev->data.scalar.anchor != NULL ? fail_at(r, &ev->start_mark, "anchors are not taken")
                                           : read_scalar(r, ev, ret);
    } else if (ev->type == YAML_SEQUENCE_START_EVENT) {
        e = ev->data.sequence_start.anchor != NULL || ev->data.sequence_start.tag != NULL
                ? fail_at(r, &ev->start_mark, "anchors and tags are not taken")
                : read_sequence(r, depth, ret);
    } else if (ev->type == YAML_MAPPING_START_EVENT) {
        e = ev->data.mapping_start.anchor != NULL || ev->data.mapping_start.tag != NULL
                ? fail_at(r, &ev->start_mark, "anchors and tags are not taken")
                : read_mapping(r, depth, ret);
    } else {
        e = fail_at(r, &ev->start_mark, "aliases are not taken");
    }
    yaml_event_delete(ev);
    return e;
}

/* Reads the next event and drops it; its type must be `want`. */
static enum err expect(struct reader *r, yaml_event_type_t want, const char *what)
{
    yaml_event_t ev;
    enum err e = next_event(r, &ev);
    if (e != ERR_OK) return e;
    if (ev.type != want) e = fail_at(r, &ev.start_mark, what);
    yaml_event_delete(&ev);
    return e;
}

enum err yaml_parse(struct str text, size_t max, struct json **ret, struct why *why)
{
    struct reader r = { .why = why };
    struct json *root = NULL;
    yaml_event_t ev;
    if (text.n > max) return why_set(why, ERR_LIMIT, "longer than %zu bytes", max);
    if (!str_is_utf8(text)) return why_set(why, ERR_INVALID, "not valid UTF-8");
    if (yaml_parser_initialize(&r.parser) == 0) return ERR_NOMEM;
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    enum err e = expect(&r, YAML_STREAM_START_EVENT, "not a stream");
    if (e == ERR_OK) e = expect(&r, YAML_DOCUMENT_START_EVENT, "empty, a document is expected");
    if (e == ERR_OK) e = next_event(&r, &ev);
    if (e == ERR_OK) e = read_node(&r, &ev, 0, &root);
    if (e == ERR_OK) e = expect(&r, YAML_DOCUMENT_END_EVENT, "more than one value");
    if (e == ERR_OK) e = expect(&r, YAML_STREAM_END_EVENT, "more than one document");
    yaml_parser_delete(&r.parser);
    if (e != ERR_OK) {
        json_free(root);
        return e;
    }
    *ret = root;
    return ERR_OK;
}

/* --- printing --- */

struct writer {
    yaml_emitter_t emitter;
    struct buf *out;
    enum err error;
};

static int write_bytes(void *ctx, unsigned char *data, size_t n)
{
    struct writer *w = ctx;
    if (w->error == ERR_OK) w->error = buf_append(w->out, data, n);
    return w->error == ERR_OK;
}

/* Takes ev. */
static bool emit(struct writer *w, yaml_event_t *ev, int made)
{
    return made != 0 && yaml_emitter_emit(&w->emitter, ev) != 0;
}

/* libyaml takes bytes it only reads through pointers that could write. */
static const yaml_char_t *bytes(struct str s)
{
    return (const yaml_char_t *)(s.n > 0 ? s.p : "");
}

static bool write_text(struct writer *w, struct str s, bool may_be_plain)
{
    yaml_event_t ev;
    return emit(w, &ev,
                yaml_scalar_event_initialize(&ev, NULL, NULL, bytes(s), (int)s.n, may_be_plain, 1,
                                             may_be_plain ? YAML_ANY_SCALAR_STYLE
                                                          : YAML_DOUBLE_QUOTED_SCALAR_STYLE));
}

static bool write_node(struct writer *w, const struct json *n)
{
    yaml_event_t ev;
    bool ok;
    struct buf text;
    switch (json_type(n)) {
    case JSON_STRING: return write_text(w, json_str(n), plain_meaning(json_str(n)).p == NULL);
    case JSON_ARRAY:
        ok = emit(w, &ev,
                  yaml_sequence_start_event_initialize(
                      &ev, NULL, NULL, 1,
                      json_len(n) == 0 ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE));
        for (const struct json *it = json_first(n); ok && it != NULL; it = json_next(it))
            ok = write_node(w, it);
        return ok && emit(w, &ev, yaml_sequence_end_event_initialize(&ev));
    case JSON_OBJECT:
        ok = emit(w, &ev,
                  yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1,
                                                      json_len(n) == 0 ? YAML_FLOW_MAPPING_STYLE
                                                                       : YAML_BLOCK_MAPPING_STYLE));
        for (const struct json *it = json_first(n); ok && it != NULL; it = json_next(it))
            ok = write_text(w, json_key(it), plain_meaning(json_key(it)).p == NULL) &&
                 write_node(w, it);
        return ok && emit(w, &ev, yaml_mapping_end_event_initialize(&ev));
    default:
        buf_init(&text, 64);
        ok = json_print(n, &text) == ERR_OK && write_text(w, buf_str(&text), true);
        buf_done(&text);
        return ok;
    }
}

enum err yaml_print(const struct json *n, struct buf *out)
{
    struct writer w = { .out = out };
    yaml_event_t ev;
    size_t before = out->len;
    if (yaml_emitter_initialize(&w.emitter) == 0) return ERR_NOMEM;
    yaml_emitter_set_output(&w.emitter, write_bytes, &w);
    yaml_emitter_set_unicode(&w.emitter, 1);
    yaml_emitter_set_width(&w.emitter, -1);
    bool ok = emit(&w, &ev, yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING)) &&
              emit(&w, &ev, yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1)) &&
              write_node(&w, n) && emit(&w, &ev, yaml_document_end_event_initialize(&ev, 1)) &&
              emit(&w, &ev, yaml_stream_end_event_initialize(&ev));
    yaml_emitter_delete(&w.emitter);
    if (ok) return ERR_OK;
    out->len = before;
    return w.error != ERR_OK ? w.error : ERR_INTERNAL;
}
