/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which characters occur side by side in a token, and so may merge. Between two that do not, a
 * piece can be cut without changing its tokens: long runs of Chinese, which are no words, become
 * words again. The answer "they may" can be wrong (bits are shared), "they do not" never is. Made
 * with a vocabulary over bytes; those over characters have chars.h. Internal to the tokenizer.
 * Pure.
 *
 * Tokens over bytes may begin or end within a character, hence four sets of bits:
 *   tail   a character's last byte and the next character: for tokens that begin within a character
 *   head   a character and the first two bytes of the next: for tokens that end within one
 *   inner  a last byte and two first ones: for tokens that do both
 *   pairs  whole characters
 */
#ifndef TOKENIZER_JOINS_H
#define TOKENIZER_JOINS_H

#include "tokenizer/models/vocab_file.h"

/*
 * What is known of each character below U+10000 (vocab.char_facts) spares most of the questions.
 * Its tokens where it stands alone: 1 to 3, 0 for no character.
 */
enum {
    CHAR_TOKENS = 3,
    CHAR_TAIL = 4,   /* in `tail` or `inner`, as the next */
    CHAR_HEAD = 8,   /* in `head` */
    CHAR_FIRST = 16, /* in `pairs`, as the first */
    CHAR_SECOND = 32,
    CHAR_WORD = 64, /* a letter of those that words.h is about */
};

enum {
    JOINS_PART = 1 << 10, /* words of each of the first three sets */
    JOINS_PARTS = 3 * JOINS_PART,
};

/*
 * The length of the first part of a piece that may be counted on its own; n when it is all.
 * *ret_whole: within it no token begins or ends inside a character, so each character first becomes
 * what it is alone, and merging may begin with that.
 */
size_t joins_part(const struct vocab *v, const char *p, size_t n, bool *ret_whole);

/* True where a piece has no parts: the vocabulary knows none, or it is ASCII. */
static inline bool joins_none(const struct vocab *v, const char *p, size_t n)
{
    uint64_t high = 0, w;
    size_t i = 0;
    if (v->h->joins == 0) return true;
    for (; i + 8 <= n; i += 8) {
        memcpy(&w, p + i, 8);
        high |= w;
    }
    for (; i < n; i++) high |= (unsigned char)p[i];
    return (high & 0x8080808080808080u) == 0;
}

/* May a and b, which follow each other, merge? b begins at q. *ret_whole becomes false when it
 * could be other than as whole characters. */
bool joins_between(const struct vocab *v, uint32_t a, uint32_t b, const char *q, bool *ret_whole);

/* The number of tokens of a part that is one character; 0 when it is not, or not known. */
static inline unsigned joins_one(const struct vocab *v, const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    if (n == 3 && u[0] >= 0xe0)
        return v->char_facts[(u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu)] &
               CHAR_TOKENS;
    if (n == 2 && u[0] >= 0xc0)
        return v->char_facts[(u[0] & 0x1fu) << 6 | (u[1] & 0x3fu)] & CHAR_TOKENS;
    return 0;
}

/* Collects the sets from the tokens of v, and the facts. *ret and *ret_facts are the caller's to
 * free. */
enum err joins_build(const struct vocab *v, uint64_t **ret, uint32_t *ret_n,
                     unsigned char **ret_facts) MUSTCHECK;

/* The token of each character of at most three bytes that merges make one token. *ret is the
 * caller's to free. */
enum err joins_chars(const struct vocab *v, uint32_t **ret) MUSTCHECK;

/* False when a file has the wrong number of words. */
static inline bool joins_fit(uint32_t n)
{
    uint32_t pairs = n - JOINS_PARTS;
    return n > JOINS_PARTS && (pairs & (pairs - 1)) == 0;
}

#endif
