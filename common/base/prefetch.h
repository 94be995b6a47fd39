/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that will be looked at soon, asked for ahead: worth it where something that takes as long
 * as a system call comes first, and what is asked for was not looked at for a while. */
#ifndef BASE_PREFETCH_H
#define BASE_PREFETCH_H

#include <stddef.h>

/* n bytes at p, which need not be readable: NULL is fine. */
static inline void prefetch(const void *p, size_t n)
{
    enum { LINE = 64 };
    for (size_t at = 0; at < n; at += LINE) __builtin_prefetch((const char *)p + at);
}

#endif
