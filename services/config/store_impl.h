/* SPDX-License-Identifier: Apache-2.0 */
/* Inside store.c, store_tx.c and store_history.c only. */
#ifndef CONFIG_STORE_IMPL_H
#define CONFIG_STORE_IMPL_H

#include <pthread.h>

#include "store.h"

enum { STORE_CONNECTIONS = 4 };

struct store {
    char *url, *lock_path, *instance;
    const struct clock *clock;
    const struct rng *rng;
    int lock_fd;
    void (*changed)(void *ctx);
    void *changed_ctx;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t returned;
    struct db *idle[STORE_CONNECTIONS];
    size_t idle_n, made;
    bool open;
};

/* A NUL-terminated copy of a column. */
enum err store_take_text(struct arena *a, const struct db_rows *rows, int column,
                         struct str *ret) MUSTCHECK;

#endif
