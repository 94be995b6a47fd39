/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of a chat template: what JSON can say, as Python would hold it, and what a template
 * makes of it. Sixteen bytes each, passed by value; lists and dicts are immutable once made and may
 * be shared by any number of values. Everything is in an arena or borrowed from the request's text.
 *
 * Integers of more than 64 bits are kept as text; floats print as Python prints them (1.0 stays
 * 1.0); the order of keys is kept.
 */
#ifndef TOKENIZER_JINJA_VALUE_H
#define TOKENIZER_JINJA_VALUE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum jv_type {
    JV_UNDEFINED, /* s, n: the name that was looked up, for the error message */
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_BIGINT, /* s, n: its digits */
    JV_FLOAT,
    JV_STR,
    JV_LIST,
    JV_TUPLE,
    JV_GENERATOR, /* what Python's lazy filters give: true, without length, read once */
    JV_RANGE,     /* the integers of range(), as a list */
    JV_DICT,
    JV_NAMESPACE,
    JV_LOOP,
    JV_MACRO,
    JV_FUNCTION, /* n: which built-in function */
    JV_METHOD,   /* n: which method; bound: of what */
};

struct jv_list;
struct jv_dict;

struct jv {
    uint8_t type;
    uint8_t mark; /* 0, or in a recording (jinja_plan.h) which string it stands for, from 1 on */
    uint32_t n;   /* bytes of a string */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        struct jv_list *list;
        struct jv_dict *dict; /* dict and namespace */
        void *p;
    };
};

struct jv_list {
    struct jv *items;
    uint32_t n;
    bool spent; /* a generator that was read */
};

struct jv_pair {
    struct jv key, value;
};

/* Keys in order of insertion; `index` (open addressing, of 1 + place) only when there are many. */
struct jv_dict {
    struct jv_pair *pairs;
    uint32_t *index;
    uint32_t n, cap, index_size;
};

static inline struct jv jv_undefined(struct str name)
{
    return (struct jv){ .type = JV_UNDEFINED, .n = (uint32_t)name.n, .s = name.p };
}
static inline struct jv jv_none(void)
{
    return (struct jv){ .type = JV_NONE };
}
static inline struct jv jv_bool(bool b)
{
    return (struct jv){ .type = JV_BOOL, .b = b };
}
static inline struct jv jv_int(int64_t i)
{
    return (struct jv){ .type = JV_INT, .i = i };
}
static inline struct jv jv_float(double f)
{
    return (struct jv){ .type = JV_FLOAT, .f = f };
}
/* Borrows the bytes. Longer than 4 GiB cannot be: the reader and the arena are bounded below. */
static inline struct jv jv_str(struct str s)
{
    return (struct jv){ .type = JV_STR, .n = (uint32_t)s.n, .s = s.p };
}
static inline struct jv jv_of_list(enum jv_type type, struct jv_list *l)
{
    return (struct jv){ .type = (uint8_t)type, .list = l };
}
static inline struct jv jv_of_dict(struct jv_dict *d)
{
    return (struct jv){ .type = JV_DICT, .dict = d };
}
static inline struct str jv_text(struct jv v)
{
    return str_n(v.s, v.n);
}
static inline bool jv_is_listy(struct jv v)
{
    return v.type >= JV_LIST && v.type <= JV_RANGE;
}

/* A list of n places, not yet filled; NULL when the arena is out. */
struct jv_list *jv_list_new(struct arena *a, size_t n) MUSTCHECK;

/* An empty dict that can take cap pairs without growing. */
struct jv_dict *jv_dict_new(struct arena *a, size_t cap) MUSTCHECK;
/* Sets key, in place when it is there already (as Python does), else at the end. For a dict that is
 * still being made, or a namespace. */
enum err jv_dict_set(struct arena *a, struct jv_dict *d, struct jv key, struct jv value) MUSTCHECK;
/* The value of key, or NULL. */
const struct jv *jv_dict_get(const struct jv_dict *d, struct jv key);
const struct jv *jv_dict_getz(const struct jv_dict *d, struct str key);
/* The value of a key of v, or NULL when v is no dict or has no such key. */
const struct jv *jv_member(struct jv v, struct str key);

enum {
    JV_JSON_DEPTH = 128,       /* arrays and objects within each other */
    JV_JSON_MAX = 1024u << 20, /* bytes of one text */
};

/*
 * Reads one JSON text (RFC 8259) as Python's json.loads reads it: of equal keys the last value
 * stands in the first one's place, "1.0" is a float and "1" an integer of any size; a lone
 * surrogate escape becomes U+FFFD. Strings without escapes borrow from text. NaN and Infinity are
 * refused. ERR_INVALID with the offset in why, ERR_LIMIT, ERR_NOMEM.
 */
enum err jv_read_json(struct arena *a, struct str text, struct jv *ret, struct why *why) MUSTCHECK;

/* Reads the string that begins at *p with its quote, and moves *p behind it; as jv_read_json(). */
enum err jv_read_string(struct arena *a, const char **p, const char *end, struct jv *ret) MUSTCHECK;

#endif
