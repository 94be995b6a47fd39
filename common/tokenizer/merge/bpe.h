/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-pair encoding of one piece. Three methods that give the same tokens: a plain lowest-rank
 * merge (short pieces), a linear one over all prefixes (long pieces), and a merge with a heap, n
 * log n, which is the reference and serves vocabularies for which the linear one does not hold.
 * Internal to the tokenizer. Pure.
 */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/models/vocab_file.h"

enum {
    BPE_WORD = 15,    /* bytes up to which a piece is not looked at for parts */
    BPE_MANY = 31,    /* bytes of a piece that is merged together with others, at most */
    BPE_SHORT = 64,   /* bytes up to which the plain merge is used at once */
    BPE_PLAIN = 128,  /* ... for what windows cannot merge */
    BPE_HEAP = 256,   /* bytes up to which nothing is allocated but what `to` needs */
    BPE_STACK = 4096, /* ... where the linear method holds */
};

/* The number of tokens of a piece, n > 0; appended to `to` unless it is NULL (which must then have
 * room or fails with ERR_NOMEM). */
enum err bpe_piece(const struct vocab *v, const char *p, size_t n, struct token_list *to,
                   uint64_t *ret) MUSTCHECK;

/* The same, given up with ERR_CLOSED soon after stop (may be NULL) says so; `to` may have some of
 * the tokens then. */
enum err bpe_piece_until(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                         struct token_list *to, uint64_t *ret) MUSTCHECK;

/*
 * The same of a part of a piece (joins_part()), which is not a token for being whole. chars:
 * merging may begin with characters.
 */
enum err bpe_part(const struct vocab *v, const char *p, size_t n, bool chars, struct token_list *to,
                  uint64_t *ret) MUSTCHECK;

/*
 * The number of tokens of short pieces by merging alone, 1 to BPE_MANY bytes each, of a vocabulary
 * over bytes: together they take much less time than one by one.
 */
struct bpe_short {
    const char *p;
    unsigned n;
    bool chars;      /* merging may begin with characters */
    uint64_t count;  /* what comes out */
    uint32_t *ids;   /* NULL, or where the tokens go: room for n */
    unsigned starts; /* bit i: one begins at byte i, or at character i where it began with them */
};
typedef void bpe_many_fn(const struct vocab *v, struct bpe_short *pieces, size_t n);
bpe_many_fn bpe_many;
bpe_many_fn *bpe_many_for(enum scan_isa isa); /* NULL when it is not there; all give the same */

/* The methods, without looking the whole piece up first. ids holds n. They return how many tokens.
 */
size_t bpe_merge_plain(const struct vocab *v, const char *p, size_t n, uint32_t *ids);
enum err bpe_merge_heap(const struct vocab *v, const char *p, size_t n, uint32_t *ids,
                        size_t *ret) MUSTCHECK;
/* last[i] becomes the last token of the prefix p[0..i], count[i] the number of its tokens. */
void bpe_prefixes(const struct vocab *v, const char *p, size_t n, uint32_t *last, uint32_t *count);
/* The same, given up with ERR_CLOSED soon after stop (may be NULL) says so. */
enum err bpe_prefixes_until(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                            uint32_t *last, uint32_t *count) MUSTCHECK;
/* The number of tokens of all of p alone, n > 0: of the prefixes it keeps only those that what
 * follows may depend on. */
enum err bpe_prefixes_count(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                            uint32_t *ret) MUSTCHECK;

/*
 * Would merging leave `left` and `right` standing side by side? Undoes their merges from the last
 * to the first; at each step the two parts that then touched must not have been due to merge before
 * the step that was undone. Of equal ranks the one further left merges first.
 */
bool bpe_compatible(const struct vocab *v, uint32_t left, uint32_t right);

/*
 * The prefixes of a piece that grows: feeding it byte by byte costs what feeding it at once does.
 * Holds `most` bytes. For vocabularies whose header says linear; always the same one.
 */
struct bpe_run;
struct bpe_run *bpe_run_new(size_t most); /* NULL when memory is out */
void bpe_run_free(struct bpe_run *r);     /* NULL is fine */
void bpe_run_clear(struct bpe_run *r);
char *bpe_run_text(struct bpe_run *r); /* `most` bytes: the caller writes the piece there */
/*
 * The tokens of its text's first `to` bytes, 0 < n <= to <= most, by merging alone. The first n
 * bytes stay as they are until it is cleared; what stands behind them need not.
 */
uint64_t bpe_run_peek(struct bpe_run *r, const struct vocab *v, size_t n, size_t to);
/* The tokens of p[0..n), 0 < n <= most, by merging alone: only what begins otherwise than the text
 * counted before, which it takes the place of, is walked. Not together with the two above. */
uint64_t bpe_run_count(struct bpe_run *r, const struct vocab *v, const char *p, size_t n);
/* Is the piece a few bytes again and again to begin with, which are best counted that way? */
bool bpe_run_is(const struct vocab *v, const char *p, size_t n);

/*
 * bpe_piece_until() by windows, of a piece of more than BPE_SHORT bytes, for vocabularies whose
 * header says linear. Given up are runs in which tokens depend on what is far away, and those of
 * long tokens: *ret_done.
 */
enum err bpe_windows(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                     struct token_list *to, uint64_t *ret, bool *ret_done) MUSTCHECK;

enum err token_list_push(struct token_list *l, uint32_t id) MUSTCHECK;
/* NULL is fine: nothing is kept. */
enum err token_list_append(struct token_list *l, const uint32_t *ids, size_t n) MUSTCHECK;

#endif
