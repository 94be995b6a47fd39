/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share. Nobody else includes this. */
#ifndef METRICS_STORE_IMPL_H
#define METRICS_STORE_IMPL_H

#include "store.h"

extern const struct db_migration store_migrations[];
extern const size_t store_migrations_n;

#endif
