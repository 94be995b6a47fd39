/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings as Python sees them: by character, not by byte. A byte that is not UTF-8 counts as one
 * character and stays as it is. Pure.
 */
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/jinja/jinja_int.h"

size_t jstr_step(const char *p, size_t n)
{
    uint32_t cp;
    size_t step = utf8_decode(p, n, &cp);
    return step > 0 ? step : 1;
}

size_t jstr_chars(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; n++)
        i += (unsigned char)s.p[i] < 0x80 ? 1 : jstr_step(s.p + i, s.n - i);
    return n;
}

size_t jstr_offset(struct str s, size_t i)
{
    size_t at = 0;
    while (i > 0 && at < s.n) {
        at += (unsigned char)s.p[at] < 0x80 ? 1 : jstr_step(s.p + at, s.n - at);
        i--;
    }
    return at;
}

/* str.isspace() */
bool jstr_is_space(uint32_t c)
{
    if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Is the character at p among chars (NULL: is it a space)? */
static bool strips(const char *p, size_t step, const struct str *chars)
{
    if (chars == NULL) {
        uint32_t cp;
        return utf8_decode(p, step, &cp) == step && jstr_is_space(cp);
    }
    for (size_t i = 0; i < chars->n;) {
        size_t n = jstr_step(chars->p + i, chars->n - i);
        if (n == step && memcmp(chars->p + i, p, n) == 0) return true;
        i += n;
    }
    return false;
}

/* The length of the character that ends at s.n. */
static size_t last_step(struct str s)
{
    size_t back = 1;
    while (back < 4 && back < s.n && ((unsigned char)s.p[s.n - back] & 0xc0) == 0x80) back++;
    return jstr_step(s.p + s.n - back, back) == back ? back : 1;
}

struct str jstr_strip(struct str s, const struct str *chars, int which)
{
    while ((which & 1) != 0 && s.n > 0) {
        size_t step = jstr_step(s.p, s.n);
        if (!strips(s.p, step, chars)) break;
        s.p += step;
        s.n -= step;
    }
    while ((which & 2) != 0 && s.n > 0) {
        size_t step = last_step(s);
        if (!strips(s.p + s.n - step, step, chars)) break;
        s.n -= step;
    }
    return s;
}

/* Simple case mapping of ASCII, Latin-1, Greek and Cyrillic: what is asked of in templates. */
uint32_t jchar_upper(uint32_t c)
{
    if (c >= 'a' && c <= 'z') return c - 32;
    if (c < 0x80) return c;
    if (c >= 0xe0 && c <= 0xfe && c != 0xf7) return c - 32;
    if (c == 0xff) return 0x178;
    if (c >= 0x3b1 && c <= 0x3c9) return c == 0x3c2 ? 0x3a3 : c - 32;
    if (c >= 0x430 && c <= 0x44f) return c - 32;
    if (c >= 0x450 && c <= 0x45f) return c - 80;
    return c;
}

uint32_t jchar_lower(uint32_t c)
{
    if (c >= 'A' && c <= 'Z') return c + 32;
    if (c < 0x80) return c;
    if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 32;
    if (c == 0x178) return 0xff;
    if (c >= 0x391 && c <= 0x3a9 && c != 0x3a2) return c + 32;
    if (c >= 0x410 && c <= 0x42f) return c + 32;
    if (c >= 0x400 && c <= 0x40f) return c + 80;
    return c;
}

bool jchar_is_alpha(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= 0xc0 && c != 0xd7 && c != 0xf7 && !(c >= 0x2000 && c <= 0x206f) &&
            !(c >= 0x3000 && c <= 0x303f));
}

bool jsb_add(struct jr *r, struct jsb *b, struct str s)
{
    if (!jpay(r, s.n / 64)) return false;
    if (s.n > b->cap - b->n) {
        size_t cap = b->cap < 128 ? 128 : b->cap * 2;
        while (cap < b->n + s.n) cap *= 2;
        if (cap > UINT32_MAX / 2) return jnomem(r), false;
        char *p = arena_alloc(r->a, cap);
        if (p == NULL) return jnomem(r), false;
        if (b->n > 0) memcpy(p, b->p, b->n);
        b->p = p;
        b->cap = cap;
    }
    if (s.n > 0) memcpy(b->p + b->n, s.p, s.n);
    b->n += s.n;
    return true;
}

struct jv jconcat(struct jr *r, struct str a, struct str b)
{
    if (b.n == 0) return jv_str(a);
    if (a.n == 0) return jv_str(b);
    if (a.n + b.n > UINT32_MAX / 2 || !jpay(r, (a.n + b.n) / 64)) return jnomem(r);
    char *p = arena_alloc(r->a, a.n + b.n);
    if (p == NULL) return jnomem(r);
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    return jv_str(str_n(p, a.n + b.n));
}

struct jv jstr_case(struct jr *r, struct str s, enum jcase how)
{
    /* A mapping never lengthens a character: U+00FF to U+0178 stays at two bytes. */
    char *out = arena_alloc(r->a, s.n);
    if (out == NULL || !jpay(r, s.n / 16)) return jnomem(r);
    char *w = out;
    bool start = true; /* of a word, or of the string */
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t step = utf8_decode(s.p + i, s.n - i, &cp);
        if (step == 0) {
            *w++ = s.p[i++];
            continue;
        }
        i += step;
        uint32_t up = jchar_upper(cp), low = jchar_lower(cp);
        uint32_t to = how == JCASE_UPPER   ? up
                      : how == JCASE_LOWER ? low
                      : how == JCASE_SWAP  ? (up != cp ? up : low)
                                           : (start ? up : low);
        start = (how == JCASE_TITLE && !jchar_is_alpha(cp)) ||
                (how == JCASE_WORDS &&
                 (jstr_is_space(cp) || (cp < 0x80 && cp > 0 && strchr("-({[<", (int)cp) != NULL)));
        w += utf8_encode(to, w);
    }
    return jv_str(str_n(out, (size_t)(w - out)));
}

size_t jstr_find(struct str s, struct str needle, size_t from)
{
    if (from > s.n) return SIZE_MAX;
    if (needle.n == 0) return from;
    const char *p = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return p != NULL ? (size_t)(p - s.p) : SIZE_MAX;
}

struct jv jstr_replace(struct jr *r, struct str s, struct str old, struct str with, int64_t max)
{
    struct jsb b = { NULL, 0, 0 };
    size_t at = 0;
    while (max != 0) {
        if (!jpay(r, 1)) break;
        size_t hit = old.n > 0 ? jstr_find(s, old, at) : at;
        if (hit == SIZE_MAX || hit > s.n) break;
        if (max > 0) max--;
        if (!jsb_add(r, &b, str_n(s.p + at, hit - at)) || !jsb_add(r, &b, with)) break;
        at = hit + old.n;
        if (old.n > 0) continue;
        if (hit == s.n) { /* an empty needle matches before each character and at the end */
            at = s.n;
            break;
        }
        size_t step = jstr_step(s.p + hit, s.n - hit);
        if (!jsb_add(r, &b, str_n(s.p + hit, step))) break;
        at = hit + step;
    }
    if (at == 0 && b.n == 0) return jv_str(s);
    (void)jsb_add(r, &b, str_n(s.p + at, s.n - at));
    return jv_str(jsb_str(&b));
}
