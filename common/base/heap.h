/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How malloc deals with memory that is free. By itself it gives the end of a thread's heap back to
 * the kernel as soon as 128 KB of it are, and the next request of that size finds each page missing
 * again: a process that serves large bodies spends a good part of its time on that.
 */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

enum {
    HEAP_RESTING = 32 * 1024 * 1024, /* bytes that a thread's heap may keep at its end, unused */
    HEAP_LARGE = 4 * 1024 * 1024     /* pieces from here on are the kernel's again when freed */
};

/* For the whole process; once, at its start. Does nothing with a malloc that is not glibc's. */
void heap_keep(void);

#endif
