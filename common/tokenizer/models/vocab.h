/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vocabulary: what `aigw-vocab` made of a tokenizer.json, .tiktoken or tekken.json. The file is
 * mapped read-only, so any number of processes share one copy in memory. Immutable once open: every
 * thread may use it at the same time.
 */
#ifndef TOKENIZER_VOCAB_H
#define TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct vocab;

/* The file name extension that vocabulary folders are searched for. */
#define VOCAB_SUFFIX ".aigwvocab"

/*
 * Maps the file, checks its version, its sections, and a sample of each page (a file cut short,
 * with holes or mixed with another; not a single flipped bit: vocab_verify() reads all of it).
 * Pages come into memory as they are used. ERR_NOT_FOUND: no such file; ERR_UNSUPPORTED: of another
 * version of this program; ERR_INVALID: damaged; ERR_IO, ERR_NOMEM. The reference returned is the
 * caller's.
 */
enum err vocab_open(const char *path, struct vocab **ret, struct why *why) MUSTCHECK;
/* The same from n bytes in memory, which are copied. For tests and for checking what was built. */
enum err vocab_open_mem(const void *data, size_t n, struct vocab **ret, struct why *why) MUSTCHECK;

/* Reads the whole file once and compares its checksum. ERR_INVALID: damaged. */
enum err vocab_verify(const struct vocab *v, struct why *why) MUSTCHECK;

struct vocab *vocab_ref(struct vocab *v); /* returns v; any thread */
void vocab_unref(struct vocab *v);        /* NULL is fine; unmaps with the last reference */

/* All views below live as long as the vocabulary. */
struct str vocab_name(const struct vocab *v); /* "qwen3" */
struct str
vocab_digest(const struct vocab *v);        /* 64 hex digits: SHA-256 of the file it was made of */
uint32_t vocab_size(const struct vocab *v); /* one more than the largest token id */

/*
 * The Jinja source of the model's chat template; n = 0 when it has none. Some models have several
 * under names: `name` "default" or "" asks for the usual one, "tool_use" for the one with tools;
 * n = 0 when there is none of that name.
 */
struct str vocab_chat_template(const struct vocab *v);
struct str vocab_chat_template_named(const struct vocab *v, const char *name);

/*
 * The strings of special tokens as templates see them, by their key in tokenizer_config.json:
 * "bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token".
 * p = NULL when the model does not define it (then the template's variable is undefined).
 */
struct str vocab_special(const struct vocab *v, const char *key);
static inline struct str vocab_bos(const struct vocab *v)
{
    return vocab_special(v, "bos_token");
}
static inline struct str vocab_eos(const struct vocab *v)
{
    return vocab_special(v, "eos_token");
}
static inline struct str vocab_pad(const struct vocab *v)
{
    return vocab_special(v, "pad_token");
}
/* tokenizer_config.json as JSON text without its chat templates and its table of added tokens; "{}"
 * if there was none. */
struct str vocab_config(const struct vocab *v);

/* Are counts with it exact? Not where PCRE2 splits the text (scan_regex.h). */
bool vocab_exact(const struct vocab *v);
/* What identified the files it was made of (folder.h), or n = 0. */
struct str vocab_source(const struct vocab *v);

/* How often a piece of text was found among those counted before with this vocabulary, and how
 * often not, since it was opened. What is being counted now may be missing. Any thread. */
struct vocab_cache_stats {
    uint64_t hits, misses;
};
void vocab_cache_stats(const struct vocab *v, struct vocab_cache_stats *ret);

/* The bytes of one token, p = NULL when there is no such id. Of an added token: its content. */
struct str vocab_token(const struct vocab *v, uint32_t id);
/* The id of the added token with exactly this content (special or not). */
enum err vocab_added_id(const struct vocab *v, struct str content, uint32_t *ret) MUSTCHECK;

#endif
