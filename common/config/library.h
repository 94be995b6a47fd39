/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the vocabularies of a folder (VOCAB_DIR) loaded while it changes: a *.aigwvocab file or a
 * model's folder that is put there, replaced or removed is taken up without a restart, on a thread
 * of its own. inotify wakes it, and it looks every few seconds besides, for file systems that tell
 * nothing.
 *
 * What is still being written is left alone until it has stayed as it is for settle_ms. What cannot
 * be used is reported and tried again when it changes; the version before it stays in use, and
 * nothing else is touched.
 *
 * A vocabulary file is not mapped where it lies: whoever writes over it in place would pull it from
 * under the feet of every process that counts with it. Its copy is mapped (a reflink where the file
 * system can), in the folder's ".mapped", which all processes share, or in the state folder when
 * the other cannot be written to.
 */
#ifndef CONFIG_LIBRARY_H
#define CONFIG_LIBRARY_H

#include "base/clock.h"
#include "tokenizer/models/models.h"

struct library;

struct library_options {
    const char *dir;       /* NULL, "" or one that is not there (yet): no vocabularies */
    const char *state_dir; /* for copies when dir is read-only; NULL: then mapped where they lie */
    const struct clock *clock;
    int settle_ms, scan_ms; /* 0: 300, 5000 */
    /* Another set of vocabularies, on the library's thread; not called for the first one. The
     * callee takes a reference of its own. */
    void (*changed)(void *ctx, struct models *vocabularies);
    /* Something worth a log line: level as in log.h, why may be NULL. From library_new() too. May
     * be NULL. */
    void (*report)(void *ctx, int level, const char *what, const char *file, const char *why);
    void *ctx;
};

/* Loads what is there (model folders that were never converted take seconds each) and begins to
 * watch. ERR_NOMEM, ERR_IO. */
enum err library_new(const struct library_options *o, struct library **ret,
                     struct why *why) MUSTCHECK;
/* No more changes: joins the thread. What is loaded stays. NULL is fine. */
void library_end(struct library *l);
void library_free(struct library *l); /* ends it first; NULL is fine */

/* The vocabularies as they are now, with a reference of its own. Any thread. */
struct models *library_models(struct library *l);

enum library_served {
    LIBRARY_NOT,         /* nothing is served of it */
    LIBRARY_BEFORE,      /* the version before it is still in use */
    LIBRARY_NO_TEMPLATE, /* it is in use, but without its chat template */
};
struct library_problem {
    const char *file; /* its name in the folder */
    const char *reason;
    enum library_served served;
};
/* Calls fn for what cannot be used as it is. Any thread; fn must not call back. l may be NULL. */
void library_problems(struct library *l, void (*fn)(void *ctx, const struct library_problem *p),
                      void *ctx);

#endif
