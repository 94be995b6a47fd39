/* SPDX-License-Identifier: Apache-2.0 */
/* cJSON behind our interface. `struct json` is a cJSON node under another name; no other file
 * knows. */
#include "rt/json.h"

#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"

static const cJSON *in(const struct json *n)
{
    return (const cJSON *)n;
}
static cJSON *mut(struct json *n)
{
    return (cJSON *)n;
}
static struct json *out(cJSON *n)
{
    return (struct json *)n;
}
static const struct json *out_const(const cJSON *n)
{
    return (const struct json *)n;
}

static cJSON *made(cJSON *n)
{
    if (n == NULL) abort(); /* out of memory while building a document of our own */
    return n;
}

/* cJSON takes deeper nesting than we do and raw control characters in strings: both are refused
 * here. */
static enum err check_text(struct str text, struct why *why)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            else if (c < 0x20)
                return why_set(why, ERR_INVALID, "a control character in a string at byte %zu", i);
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_MAX_DEPTH)
                return why_set(why, ERR_LIMIT, "nested deeper than %d levels", JSON_MAX_DEPTH);
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c < 0x20 && c != '\n' && c != '\r' && c != '\t') {
            return why_set(why, ERR_INVALID, "a control character at byte %zu", i);
        }
    }
    return ERR_OK;
}

static enum err check_keys(const cJSON *n, struct why *why)
{
    enum err e = ERR_OK;
    struct map seen;
    if (!cJSON_IsObject(n) && !cJSON_IsArray(n)) return ERR_OK;
    map_init(&seen, SIZE_MAX / 2);
    for (const cJSON *c = n->child; c != NULL && e == ERR_OK; c = c->next) {
        void *old = NULL;
        if (c->string != NULL) e = map_put(&seen, str_of(c->string), &seen, &old);
        if (e == ERR_OK && old != NULL)
            e = why_set(why, ERR_INVALID, "the key \"%.64s\" occurs twice in an object", c->string);
        if (e == ERR_OK) e = check_keys(c, why);
    }
    map_done(&seen);
    return e;
}

enum err json_parse(struct str text, size_t max, struct json **ret, struct why *why)
{
    const char *end = NULL;
    if (text.n > max) return why_set(why, ERR_LIMIT, "longer than %zu bytes", max);
    if (text.n == 0) return why_set(why, ERR_INVALID, "empty, a JSON document is expected");
    if (!str_is_utf8(text)) return why_set(why, ERR_INVALID, "not valid UTF-8");
    enum err e = check_text(text, why);
    if (e != ERR_OK) return e;
    cJSON *root = cJSON_ParseWithLengthOpts(text.p, text.n, &end, 0);
    if (root == NULL) {
        size_t at = end != NULL ? (size_t)(end - text.p) : 0;
        return why_set(why, ERR_INVALID, "not valid JSON at byte %zu", at);
    }
    for (; end < text.p + text.n; end++) {
        if (strchr(" \t\r\n", *end) == NULL || *end == '\0') {
            cJSON_Delete(root);
            return why_set(why, ERR_INVALID, "bytes behind the document at byte %zu",
                           (size_t)(end - text.p));
        }
    }
    e = check_keys(root, why);
    if (e != ERR_OK) {
        cJSON_Delete(root);
        return e;
    }
    *ret = out(root);
    return ERR_OK;
}

void json_free(struct json *root)
{
    cJSON_Delete(mut(root));
}

enum json_type json_type(const struct json *n)
{
    const cJSON *c = in(n);
    if (cJSON_IsBool(c)) return JSON_BOOL;
    if (cJSON_IsNumber(c) || cJSON_IsRaw(c)) return JSON_NUMBER;
    if (cJSON_IsString(c)) return JSON_STRING;
    if (cJSON_IsArray(c)) return JSON_ARRAY;
    if (cJSON_IsObject(c)) return JSON_OBJECT;
    return JSON_NULL;
}

bool json_is(const struct json *n, enum json_type t)
{
    return n != NULL && json_type(n) == t;
}

const struct json *json_get(const struct json *object, const char *key)
{
    if (!json_is(object, JSON_OBJECT)) return NULL;
    return out_const(cJSON_GetObjectItemCaseSensitive(in(object), key));
}

struct str json_key(const struct json *n)
{
    return str_of(in(n)->string);
}

const struct json *json_first(const struct json *container)
{
    if (!json_is(container, JSON_ARRAY) && !json_is(container, JSON_OBJECT)) return NULL;
    return out_const(in(container)->child);
}

const struct json *json_next(const struct json *n)
{
    return out_const(in(n)->next);
}

size_t json_len(const struct json *container)
{
    size_t n = 0;
    for (const struct json *c = json_first(container); c != NULL; c = json_next(c)) n++;
    return n;
}

struct str json_str(const struct json *n)
{
    return json_is(n, JSON_STRING) ? str_of(in(n)->valuestring) : STR_NULL;
}

/* The member, or why there is none. */
static enum err member(const struct json *o, const char *key, enum json_type t,
                       const struct json **ret)
{
    const struct json *n = json_get(o, key);
    if (n == NULL || json_type(n) == JSON_NULL) return ERR_NOT_FOUND;
    if (json_type(n) != t) return ERR_INVALID;
    *ret = n;
    return ERR_OK;
}

enum err json_get_str(const struct json *o, const char *key, struct str *ret)
{
    const struct json *n;
    enum err e = member(o, key, JSON_STRING, &n);
    if (e == ERR_OK) *ret = json_str(n);
    return e;
}

enum err json_get_double(const struct json *o, const char *key, double *ret)
{
    const struct json *n;
    enum err e = member(o, key, JSON_NUMBER, &n);
    if (e == ERR_OK && cJSON_IsRaw(in(n))) e = ERR_INVALID;
    if (e == ERR_OK) *ret = in(n)->valuedouble;
    return e;
}

static const double exact_max = 9007199254740992.0; /* 2^53 */

enum err json_get_i64(const struct json *o, const char *key, int64_t *ret)
{
    double d;
    enum err e = json_get_double(o, key, &d);
    if (e != ERR_OK) return e;
    if (!(fabs(d) <= exact_max) || d != floor(d)) return ERR_INVALID;
    *ret = (int64_t)d;
    return ERR_OK;
}

enum err json_get_u64(const struct json *o, const char *key, uint64_t *ret)
{
    int64_t v;
    enum err e = json_get_i64(o, key, &v);
    if (e == ERR_OK && v < 0) e = ERR_INVALID;
    if (e == ERR_OK) *ret = (uint64_t)v;
    return e;
}

enum err json_get_bool(const struct json *o, const char *key, bool *ret)
{
    const struct json *n;
    enum err e = member(o, key, JSON_BOOL, &n);
    if (e == ERR_OK) *ret = cJSON_IsTrue(in(n));
    return e;
}

struct json *json_object(void)
{
    return out(made(cJSON_CreateObject()));
}

struct json *json_array(void)
{
    return out(made(cJSON_CreateArray()));
}

void json_set(struct json *o, const char *key, struct json *takes)
{
    ASSERT(json_is(o, JSON_OBJECT));
    if (json_get(o, key) != NULL)
        cJSON_ReplaceItemInObjectCaseSensitive(mut(o), key, mut(takes));
    else
        cJSON_AddItemToObject(mut(o), key, mut(takes));
}

struct json *json_new_str(struct str s)
{
    if (s.p == NULL) return out(made(cJSON_CreateNull()));
    char *z = str_dupz(s);
    cJSON *n = made(cJSON_CreateString(z));
    free(z);
    return out(n);
}

void json_set_str(struct json *o, const char *key, struct str s)
{
    json_set(o, key, json_new_str(s));
}

void json_setz(struct json *o, const char *key, const char *z)
{
    json_set_str(o, key, str_of(z));
}

static struct json *new_i64(bool negative, uint64_t magnitude)
{
    char text[32];
    /* cJSON takes 15 digits for enough when they are within an epsilon: true only below 2^52 */
    if (magnitude <= (uint64_t)exact_max / 2)
        return out(made(cJSON_CreateNumber(negative ? -(double)magnitude : (double)magnitude)));
    (void)snprintf(text, sizeof text, "%s%llu", negative ? "-" : "", (unsigned long long)magnitude);
    return out(made(cJSON_CreateRaw(text)));
}

void json_set_u64(struct json *o, const char *key, uint64_t v)
{
    json_set(o, key, new_i64(false, v));
}

void json_set_i64(struct json *o, const char *key, int64_t v)
{
    json_set(o, key, new_i64(v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v));
}

void json_set_bool(struct json *o, const char *key, bool v)
{
    json_set(o, key, out(made(cJSON_CreateBool(v))));
}

void json_set_null(struct json *o, const char *key)
{
    json_set(o, key, out(made(cJSON_CreateNull())));
}

void json_remove(struct json *o, const char *key)
{
    cJSON_DeleteItemFromObjectCaseSensitive(mut(o), key);
}

void json_push(struct json *array, struct json *takes)
{
    ASSERT(json_is(array, JSON_ARRAY));
    cJSON_AddItemToArray(mut(array), mut(takes));
}

void json_push_str(struct json *array, struct str s)
{
    json_push(array, json_new_str(s));
}

struct json *json_copy(const struct json *n)
{
    return out(made(cJSON_Duplicate(in(n), 1)));
}

bool json_equal(const struct json *a, const struct json *b)
{
    return cJSON_Compare(in(a), in(b), 1);
}

enum err json_print(const struct json *n, struct buf *b)
{
    char *text = cJSON_PrintUnformatted(in(n));
    if (text == NULL) return ERR_NOMEM;
    enum err e = buf_appendz(b, text);
    cJSON_free(text);
    return e;
}
