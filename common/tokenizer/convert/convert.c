/* SPDX-License-Identifier: Apache-2.0 */
/* What all converters share: names, tokenizer_config.json, merges from ranks. Any thread. */
#include "tokenizer/convert/convert_parts.h"

static bool is_special_key(struct str key)
{
    static const char *const keys[] = { "bos_token", "eos_token", "pad_token", "unk_token",
                                        "sep_token", "cls_token", "mask_token" };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (str_eqz(key, keys[i])) return true;
    return false;
}

static enum err add_text(struct build *b, const char *kind, struct str key, struct str value)
{
    char name[128];
    if (key.n > 64) return ERR_OK; /* nobody will ask for it */
    (void)snprintf(name, sizeof name, "%s%.*s", kind, STR_ARG(key));
    return build_text(b, name, value);
}

/* A string, {"content": string} or null. */
static enum err special_string(struct build *b, struct jpull *j, struct str key, struct buf *tmp)
{
    struct str k;
    buf_clear(tmp);
    switch (jpull_peek(j)) {
    case '"': jpull_string(j, tmp); break;
    case '{': {
        bool found = false;
        for (jpull_enter(j, '{'); jpull_key(j, &k);) {
            if (str_eqz(k, "content") && jpull_peek(j) == '"' && !found) {
                jpull_string(j, tmp);
                found = true;
            } else {
                (void)jpull_skip(j);
            }
        }
        if (!found) return ERR_OK;
        break;
    }
    default: (void)jpull_skip(j); return ERR_OK;
    }
    return j->failed ? ERR_OK : add_text(b, "special:", key, buf_str(tmp));
}

/* [{"name": "tool_use", "template": "..."}] */
static enum err named_templates(struct build *b, struct jpull *j, struct buf *tmp,
                                bool have_default)
{
    struct str k;
    struct buf name;
    enum err e = ERR_OK;
    buf_init(&name, 4096);
    for (jpull_enter(j, '['); e == ERR_OK && jpull_element(j);) {
        buf_clear(&name);
        buf_clear(tmp);
        for (jpull_enter(j, '{'); jpull_key(j, &k);) {
            if (str_eqz(k, "name") && name.len == 0)
                jpull_string(j, &name);
            else if (str_eqz(k, "template") && tmp->len == 0)
                jpull_string(j, tmp);
            else
                (void)jpull_skip(j);
        }
        if (j->failed || (have_default && str_eqz(buf_str(&name), "default"))) continue;
        e = add_text(b, "template:", buf_str(&name), buf_str(tmp));
    }
    buf_done(&name);
    return e;
}

static enum err add_config(struct build *b, struct str json, bool have_template, struct why *why)
{
    struct jpull j;
    struct buf tmp, kept;
    struct str key;
    enum err e = ERR_OK;
    jpull_init(&j, json);
    buf_init(&tmp, 8u << 20);
    buf_init(&kept, 8u << 20);
    e = buf_append_char(&kept, '{');
    for (jpull_enter(&j, '{'); e == ERR_OK && jpull_key(&j, &key);) {
        if (str_eqz(key, "added_tokens_decoder")) {
            (void)jpull_skip(&j);
        } else if (str_eqz(key, "chat_template")) {
            buf_clear(&tmp);
            switch (jpull_peek(&j)) {
            case '"':
                jpull_string(&j, &tmp);
                if (!have_template && !j.failed)
                    e = build_text(b, "template:default", buf_str(&tmp));
                break;
            case '[': e = named_templates(b, &j, &tmp, have_template); break;
            default: (void)jpull_skip(&j);
            }
        } else {
            if (kept.len > 1) e = buf_append_char(&kept, ',');
            if (e == ERR_OK) e = buf_append_json(&kept, key);
            if (e == ERR_OK) e = buf_append_char(&kept, ':');
            if (e != ERR_OK) break;
            struct jpull again = j; /* the value is read twice: as it is, and for what it means */
            bool special = is_special_key(key);
            char name[65];
            (void)str_copyz(name, sizeof name, key);
            struct str raw = jpull_skip(&j);
            e = buf_append_str(&kept, raw);
            if (special && e == ERR_OK && !j.failed) {
                buf_init(&again.keys, 1u << 20);
                e = special_string(b, &again, str_of(name), &tmp);
                buf_done(&again.keys);
                if (again.failed) jpull_fail(&j, again.reason);
            }
        }
    }
    if (e == ERR_OK) e = buf_append_char(&kept, '}');
    if (e == ERR_OK) e = jpull_end(&j, why);
    if (e == ERR_OK) e = build_text(b, "config", buf_str(&kept));
    jpull_done(&j);
    buf_done(&tmp);
    buf_done(&kept);
    return e;
}

enum err convert_common(struct build *b, const struct convert_opts *o, struct why *why)
{
    struct str none = STR("0000000000000000000000000000000000000000000000000000000000000000");
    struct str digest = o->digest.n > 0 ? o->digest : none;
    if (o->name.n == 0 || o->name.n > 63)
        return why_set(why, ERR_INVALID, "a vocabulary needs a name of at most 63 characters");
    enum err e = build_text(b, "name", o->name);
    if (e == ERR_OK) e = build_text(b, "digest", digest);
    if (e == ERR_OK && o->source.n > 0) e = build_text(b, "source", o->source);
    if (e == ERR_OK && o->template.n > 0) e = build_text(b, "template:default", o->template);
    for (size_t i = 0; i < o->templates_n && e == ERR_OK; i++)
        e = add_text(b, "template:", o->templates[i].name, o->templates[i].source);
    if (e != ERR_OK) return e;
    if (o->config.n == 0) return build_text(b, "config", STR("{}"));
    struct why what = { "" };
    e = add_config(b, o->config, o->template.n > 0, &what);
    if (e != ERR_OK) (void)why_set(why, e, "tokenizer_config.json: %s", what.text);
    return e;
}

enum err convert_pairs_from_ranks(struct build *b, uint32_t first, struct map *ids, struct why *why)
{
    uint32_t size = build_size(b);
    for (uint32_t id = first; id < size; id++) {
        struct str s = build_bytes(b, id);
        for (size_t cut = 1; cut < s.n; cut++) {
            void *left = map_get(ids, str_n(s.p, cut));
            void *right = left != NULL ? map_get(ids, str_n(s.p + cut, s.n - cut)) : NULL;
            if (right == NULL) continue;
            enum err e = build_pair(b, convert_id(left), convert_id(right), id - first, id);
            if (e != ERR_OK) return why_set(why, e, "too many merges");
        }
    }
    return ERR_OK;
}
