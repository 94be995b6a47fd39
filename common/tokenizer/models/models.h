/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a model's name to how it counts: the vocabularies found in VOCAB_DIR, the names that lead to
 * them, and their chat templates.
 *
 * A `struct models` is immutable and reference counted: threads share one, a reload makes a new one
 * beside it (vocabularies whose files did not change are mapped again at no cost in memory: the
 * kernel shares their pages) and swaps.
 *
 * A name is looked up, without case, first as it stands and then as what follows its last '/':
 *  1. in the entries given (the configuration's models): a pattern, and the vocabulary's name;
 *  2. among the names of the loaded vocabularies themselves;
 *  3. in the patterns built in (models_pattern()).
 * What is found in none of them is counted as an estimate. A name that is known to belong to a
 * family with another vocabulary is never counted with a neighbour's; one that only contains the
 * name of a family ("hermes-3-llama-3.1-8b") is counted as that family, never as exact.
 */
#ifndef TOKENIZER_MODELS_H
#define TOKENIZER_MODELS_H

#include "base/err.h"
#include "base/str.h"
#include "tokenizer/chat/chat.h"

struct models;

/* One vocabulary with its chat template, compiled. Immutable, reference counted, any thread. */
struct models_vocab;

/*
 * path: a vocabulary file, or a model folder (folder.h; converted when it is first seen, which
 * takes seconds). ERR_NOT_FOUND; ERR_INVALID: damaged, or still being written; ERR_UNSUPPORTED,
 * ERR_IO, ERR_NOMEM; why says. A chat template that does not compile is no error: see
 * models_vocab_problem().
 */
enum err models_vocab_open(const char *path, struct models_vocab **ret, struct why *why) MUSTCHECK;
struct models_vocab *models_vocab_ref(struct models_vocab *v); /* returns v */
void models_vocab_unref(struct models_vocab *v);               /* NULL is fine */
struct str models_vocab_name(const struct models_vocab *v);
const char *models_vocab_problem(const struct models_vocab *v); /* of its template; "": none */
/* Would models_load() look at this member of the folder? */
bool models_is_source(const char *dir, const char *name);

/* The configuration says: names that match pattern ('*' is any run, '?' any character, compared
 * without case) count with this vocabulary. */
struct models_entry {
    struct str pattern, vocabulary;
};

/* What loading met, for the log; called once per file that is left out or comes without its
 * template. */
typedef void models_report_fn(void *ctx, const char *file, const char *problem);

/*
 * Loads every *.aigwvocab of dir and every model folder in it (folder.h; converted when it is first
 * seen, which takes seconds: call it where that may be), in the order of their names. What cannot
 * be read is reported and left out: it must not keep the others from serving. dir NULL or "": no
 * vocabularies. ERR_NOT_FOUND: no such folder; ERR_IO, ERR_NOMEM. The entries are copied.
 */
enum err models_load(const char *dir, const struct models_entry *entries, size_t n,
                     models_report_fn *report, void *report_ctx, struct models **ret,
                     struct why *why) MUSTCHECK;
/* Of vocabularies with different names, in any order; takes references of its own. ERR_NOMEM. */
enum err models_new(struct models_vocab *const *vocabs, size_t n, struct models **ret) MUSTCHECK;
/*
 * Takes the rules for images from `images.rules` in dir, where there is one, instead of those built
 * in (images.h); before m is shared. ERR_INVALID with the reason, ERR_IO, ERR_LIMIT, ERR_NOMEM: m
 * stays as it was.
 */
enum err models_read_image_rules(struct models *m, const char *dir, struct why *why) MUSTCHECK;
/* The same vocabularies and templates with other entries. */
enum err models_with_entries(const struct models *m, const struct models_entry *entries, size_t n,
                             struct models **ret) MUSTCHECK;
struct models *models_ref(struct models *m); /* returns m; any thread */
void models_unref(struct models *m);         /* NULL is fine */

/* How a model counts. Never fails: what is unknown comes back without a vocabulary. *ret borrows
 * from m. */
void models_find(const struct models *m, struct str model, struct model_info *ret);

/* The vocabularies, in the order of their names. */
size_t models_count(const struct models *m);
void models_at(const struct models *m, size_t i, struct model_info *ret);

/* The built-in patterns, for documentation and tests: NULL behind the last. */
struct models_pattern {
    const char *pattern;    /* what the name must match */
    const char *vocabulary; /* NULL: known to be none of ours */
    enum models_fit {
        FIT_OWN,      /* the vocabulary, and its chat template */
        FIT_RELATIVE, /* the same vocabulary, but the template may differ */
        FIT_GUESS     /* the name says what it was made of; it may have been given more tokens */
    } fit;
};
const struct models_pattern *models_pattern(size_t i);

/* Does s match pattern ('*', '?'; ASCII case folded)? Linear in their product at worst. */
bool models_match(struct str pattern, struct str s);

#endif
