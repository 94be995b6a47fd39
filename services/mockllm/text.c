/* SPDX-License-Identifier: Apache-2.0 */
/* A short text whose words are one token each, and cutting pieces out of it. Pure. */
#include "text.h"

#include <stdlib.h>

/* Before adding a word, check that it is one token with a space before it in every vocabulary that
 * the header names; the first of a sentence without the space, too. */
/* clang-format off */
static const char *const words[] = {
    "This", "is", "the", "mock", "model", ".",
    "It", "answers", "without", "any", "real", "intelligence", ",", "so", "that", "tests",
    "and", "examples", "can", "run", "on", "every", "machine", ".",
    "The", "words", "come", "from", "a", "small", "list", ",", "and", "the", "same",
    "question", "always", "gets", "the", "same", "answer", ".",
    "A", "river", "starts", "high", "in", "the", "mountains", ",", "runs", "through", "the",
    "green", "valley", ",", "and", "reaches", "the", "sea", "after", "many", "days", ".",
    "The", "old", "town", "has", "a", "market", ",", "a", "library", ",", "and", "a",
    "bridge", "of", "stone", ".",
    "Most", "people", "walk", "to", "work", "in", "the", "morning", "and", "come", "home",
    "before", "dark", ".",
    "Rain", "falls", "in", "the", "night", ",", "and", "the", "streets", "are", "clean",
    "when", "the", "sun", "comes", "up", ".",
    "Some", "birds", "stay", "all", "winter", ",", "others", "fly", "south", "until", "the",
    "first", "warm", "days", "of", "spring", ".",
    "A", "good", "book", "can", "be", "read", "more", "than", "once", ",", "because", "the",
    "reader", "is", "never", "the", "same", ".",
    "Time", "moves", "slowly", "near", "the", "harbor", ",", "where", "ships", "wait", "for",
    "the", "next", "wind", ".",
    "Every", "number", "in", "this", "text", "is", "known", "before", "the", "first", "word",
    "is", "sent", ".",
    "Nothing", "here", "should", "be", "used", "as", "advice", ",", "only", "as", "a", "way",
    "to", "count", ".",
    "The", "garden", "behind", "the", "house", "is", "full", "of", "apple", "trees", "and",
    "tall", "grass", ".",
    "Children", "play", "there", "in", "summer", ",", "while", "their", "parents", "talk",
    "about", "the", "weather", ".",
    "When", "the", "train", "leaves", "the", "station", ",", "the", "long", "journey", "has",
    "just", "begun", ".",
    "Two", "friends", "share", "bread", ",", "water", ",", "and", "a", "map", "of", "the",
    "northern", "coast", ".",
    "They", "follow", "the", "road", "past", "the", "mill", ",", "cross", "the", "field", ",",
    "and", "rest", "under", "a", "large", "tree", ".",
    "Light", "changes", "the", "color", "of", "the", "hills", "from", "blue", "to", "gold",
    ".",
    "In", "the", "end", "each", "line", "is", "simple", ",", "and", "that", "is", "the",
    "point", ".",
};
/* clang-format on */

enum { WORDS = ARRAY_LEN(words), FIRST_SENTENCE = 6, NATURAL_MIN = 30, COPY_PIECE = 4 };

static bool ends_sentence(size_t i)
{
    return words[i][0] == '.';
}

/* Where the n-th sentence begins, the first one not counted. */
static size_t sentence_start(uint64_t n)
{
    size_t sentences = 0, at = FIRST_SENTENCE;
    for (size_t i = FIRST_SENTENCE; i < WORDS; i++) sentences += ends_sentence(i);
    for (n %= sentences; n > 0; at++) n -= ends_sentence(at);
    return at;
}

/* The word of piece i. */
static size_t word_of(const struct text *t, uint64_t i)
{
    if (i < FIRST_SENTENCE) return (size_t)i;
    return FIRST_SENTENCE +
           (size_t)((t->start - FIRST_SENTENCE + (i - FIRST_SENTENCE)) % (WORDS - FIRST_SENTENCE));
}

void text_exact(struct text *t, uint64_t seed, uint64_t n)
{
    *t = (struct text){ .len = n, .start = sentence_start(seed) };
}

void text_natural(struct text *t, uint64_t seed)
{
    text_exact(t, seed, NATURAL_MIN);
    while (!ends_sentence(word_of(t, t->len - 1))) t->len++;
}

enum err text_copy(struct text *t, struct str borrowed)
{
    *t = (struct text){ .copy = borrowed };
    if (borrowed.p == NULL || borrowed.n > UINT32_MAX) t->copy = STR("");
    t->ends = malloc((t->copy.n / COPY_PIECE + 1) * sizeof *t->ends);
    if (t->ends == NULL) return ERR_NOMEM;
    for (size_t at = 0; at < t->copy.n;) {
        at = MIN(at + COPY_PIECE, t->copy.n);
        /* Not before a continuation byte of UTF-8. */
        while (at < t->copy.n && (t->copy.p[at] & 0xc0) == 0x80) at++;
        t->ends[t->len++] = (uint32_t)at;
    }
    return ERR_OK;
}

void text_pieces(struct text *t, struct str borrowed, uint32_t *ends, size_t n)
{
    *t = (struct text){ .len = n, .copy = borrowed, .ends = ends };
}

struct str text_chinese(uint64_t seed)
{
    static const char *const texts[] = {
        "这是模拟模型，不是真正的大模型。它按照请求生成固定的文字，方便测试和演示。"
        "同样的问题总会得到同样的回答。",
        "这是模拟模型，不是真正的大模型。清晨的河水从山谷流过，老街上的店铺陆续开门。"
        "人们过桥去上班，孩子们在树下玩耍。",
        "这是模拟模型，不是真正的大模型。窗外下着小雨，屋里有一壶热茶和一本旧书。"
        "读完这一页，火车也快到站了。",
        "这是模拟模型，不是真正的大模型。这里的内容没有任何含义，请不要当作建议。"
        "每个词元的数量在发送之前就已经确定。",
    };
    return str_of(texts[seed % ARRAY_LEN(texts)]);
}

void text_done(struct text *t)
{
    free(t->ends);
    *t = (struct text){ 0 };
}

struct str text_piece(const struct text *t, uint64_t i, char scratch[TEXT_PIECE_MAX])
{
    ASSERT(i < t->len);
    if (t->copy.p != NULL) {
        size_t from = i > 0 ? t->ends[i - 1] : 0;
        return str_n(t->copy.p + from, t->ends[i] - from);
    }
    const char *w = words[word_of(t, i)];
    size_t n = strlen(w), space = i > 0 && w[0] != '.' && w[0] != ',' ? 1 : 0;
    ASSERT(n + space <= TEXT_PIECE_MAX);
    scratch[0] = ' ';
    memcpy(scratch + space, w, n);
    return str_n(scratch, n + space);
}

enum err text_append(const struct text *t, struct buf *out)
{
    enum { AT_ONCE = 64 };
    if (t->copy.p != NULL) return buf_append(out, t->copy.p, t->len > 0 ? t->ends[t->len - 1] : 0);
    for (uint64_t i = 0; i < t->len;) {
        char *room;
        uint64_t end = MIN(i + AT_ONCE, t->len);
        enum err e = buf_reserve(out, AT_ONCE * TEXT_PIECE_MAX, &room);
        if (e != ERR_OK) return e;
        /* text_piece() writes where we want it. */
        for (; i < end; i++) room += text_piece(t, i, room).n;
        out->len = (size_t)(room - out->data);
    }
    return ERR_OK;
}
