/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread has freed is there for its next round, without a page fault for each page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/heap.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MALLOC 1
#endif
#endif

enum { PIECES = 64, PIECE = 128 * 1024, PAGE = 4096 };

static long faults(void)
{
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_THREAD, &u), 0);
    return u.ru_minflt;
}

/* Bodies of as many requests, all at once; returns the page faults that they cost. */
static long round_of_bodies(void)
{
    char *p[PIECES];
    long before = faults();
    for (size_t i = 0; i < PIECES; i++) {
        p[i] = malloc(PIECE);
        assert_non_null(p[i]);
        memset(p[i], (int)i, PIECE);
    }
    for (size_t i = 0; i < PIECES; i++) free(p[i]);
    return faults() - before;
}

static void *rounds(void *ctx)
{
    long *ret = ctx;
    (void)round_of_bodies();
    *ret = round_of_bodies();
    return NULL;
}

static void freed_memory_is_used_again_without_faults(void **state)
{
    (void)state;
#if defined(OWN_MALLOC) || !defined(__GLIBC__)
    skip(); /* another malloc */
#endif
    pthread_t t;
    long n = 0;
    heap_keep();
    assert_int_equal(pthread_create(&t, NULL, rounds, &n), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_true(n < PIECES * (PIECE / PAGE) / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        freed_memory_is_used_again_without_faults) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
