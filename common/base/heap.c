/* SPDX-License-Identifier: Apache-2.0 */
#include "base/heap.h"

#include <stdlib.h> /* says whose libc it is */

#ifdef __GLIBC__
#include <malloc.h>
#endif

void heap_keep(void)
{
#ifdef __GLIBC__
    /* Either of them alone would end what malloc finds out about the other by itself. */
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_RESTING);
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_LARGE);
#endif
}
