/* SPDX-License-Identifier: Apache-2.0 */
/* The usage spool: nothing is lost when its process is killed, nothing comes out twice, the disk it
 * takes is bounded. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/uuid.h"
#include "services/edge/records/spool.h"
#include "services/edge/records/spool_segment.h"

static const char *const root = "/tmp";

struct place {
    char dir[256];
};

static int make_place(void **state)
{
    struct place *p = xcalloc(1, sizeof *p);
    (void)snprintf(p->dir, sizeof p->dir, "%s/test-spool-XXXXXX", root);
    assert_non_null(mkdtemp(p->dir));
    *state = p;
    return 0;
}

static void remove_tree(const char *path)
{
    char below[1024];
    struct dirent *e;
    DIR *d = opendir(path);
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        (void)snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        remove_tree(below);
    }
    if (d != NULL) (void)closedir(d);
    (void)remove(path);
}

static int remove_place(void **state)
{
    struct place *p = *state;
    remove_tree(p->dir);
    free(p);
    return 0;
}

static struct spool_options options(const struct place *p)
{
    return (struct spool_options){ .dir = p->dir,
                                   .workers = 2,
                                   .segment_bytes = 16 * 1024,
                                   .max_bytes = 4 * 1024 * 1024,
                                   .sync_ms = 2,
                                   .clock = clock_system(),
                                   .rng = rng_system() };
}

static struct spool *open_spool(const struct spool_options *o)
{
    struct spool *s = NULL;
    struct why why = { "" };
    if (spool_new(o, &s, &why) != ERR_OK) fail_msg("%s", why.text);
    return s;
}

/* Identifiers that a test can read: number n as a UUID. */
static struct str id_of(char out[UUID_LEN + 1], unsigned n)
{
    (void)snprintf(out, UUID_LEN + 1, "00000000-0000-7000-8000-%012u", n);
    return str_n(out, UUID_LEN);
}

static unsigned number_of(struct str id)
{
    uint64_t n;
    assert_int_equal(id.n, UUID_LEN);
    assert_int_equal(str_to_u64(str_n(id.p + 24, 12), &n), ERR_OK);
    return (unsigned)n;
}

static struct spool_ticket *begin(struct spool *s, unsigned worker, unsigned n)
{
    char id[UUID_LEN + 1], text[64];
    struct spool_ticket *t = NULL;
    int len = snprintf(text, sizeof text, "open %u", n);
    ASSERT(spool_begin(s, worker, id_of(id, n), STR("team-a"), str_n(text, (size_t)len), &t) ==
           ERR_OK);
    return t;
}

static void settle(struct spool *s, struct spool_ticket *t, unsigned n)
{
    char text[64];
    int len = snprintf(text, sizeof text, "settled %u", n);
    ASSERT(spool_settle(s, t, str_n(text, (size_t)len)) == ERR_OK);
}

static void wait_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    (void)nanosleep(&t, NULL);
}

/* Waits until the condition holds, for a minute at most. */
#define UNTIL(cond)                                                \
    do {                                                           \
        for (int tries_ = 0; !(cond); tries_++) {                  \
            if (tries_ > 30000) fail_msg("never came: %s", #cond); \
            wait_ms(2);                                            \
        }                                                          \
    } while (0)

static struct spool_stats stats(struct spool *s)
{
    struct spool_stats st;
    spool_stats(s, &st);
    return st;
}

/* Directories of incarnations below the root. */
static unsigned count_dirs(const struct place *p)
{
    unsigned n = 0;
    struct dirent *e;
    DIR *d = opendir(p->dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) n += uuid_is_valid(str_of(e->d_name)) ? 1 : 0;
    (void)closedir(d);
    return n;
}

/* --- tests --- */

static void what_is_settled_comes_out_once(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    struct spool_ticket *a = begin(s, 0, 1), *b = begin(s, 1, 2);
    assert_int_equal(spool_next(s, &i), ERR_NOT_FOUND);
    settle(s, b, 2);
    assert_int_equal(spool_next(s, &i), ERR_OK);
    assert_int_equal(number_of(i.id), 2);
    assert_true(str_eqz(i.name, "team-a"));
    assert_true(str_eqz(i.text, "settled 2"));
    assert_false(i.crashed);
    spool_done(s, &i.ref, 1);
    settle(s, a, 1);
    assert_int_equal(stats(s).settled, 1);
    assert_int_equal(stats(s).open, 0);
    assert_int_equal(spool_next(s, &i), ERR_OK);
    assert_int_equal(number_of(i.id), 1);
    spool_done(s, &i.ref, 1);
    assert_int_equal(spool_next(s, &i), ERR_NOT_FOUND);
    assert_int_equal(stats(s).settled, 0);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

static void what_is_not_delivered_stays_for_the_next(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    char id[UUID_LEN + 1];
    settle(s, begin(s, 0, 1), 1);
    settle(s, begin(s, 0, 2), 2);
    assert_int_equal(spool_put(s, 1, id_of(id, 3), STR("-"), STR("refused")), ERR_OK);
    assert_int_equal(spool_next(s, &i), ERR_OK);
    spool_done(s, &i.ref, 1); /* one of them was delivered */
    unsigned gone = number_of(i.id), seen = 0;
    spool_free(s);
    assert_int_equal(count_dirs(*state), 1);

    s = open_spool(&o);
    assert_int_equal(stats(s).adopted, 2);
    assert_int_equal(stats(s).crashed, 0);
    while (spool_next(s, &i) == ERR_OK) {
        assert_false(i.crashed);
        assert_int_not_equal(number_of(i.id), gone);
        seen++;
        spool_done(s, &i.ref, 1);
    }
    assert_int_equal(seen, 2);
    UNTIL(count_dirs(*state) == 1); /* the adopted one goes away */
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

static void a_living_neighbour_is_left_alone(void **state)
{
    struct spool_options o = options(*state);
    struct spool *a = open_spool(&o), *b;
    settle(a, begin(a, 0, 1), 1);
    struct spool_ticket *t = begin(a, 0, 2);
    b = open_spool(&o);
    struct spool_item i;
    assert_int_equal(spool_next(b, &i), ERR_NOT_FOUND);
    assert_int_equal(stats(b).adopted, 0);
    spool_free(b);
    settle(a, t, 2);
    assert_int_equal(spool_next(a, &i), ERR_OK);
    spool_done(a, &i.ref, 1);
    assert_int_equal(spool_next(a, &i), ERR_OK);
    spool_done(a, &i.ref, 1);
    spool_free(a);
}

static void open_records_of_the_dead_come_out_as_crashed(void **state)
{
    struct spool_options o = options(*state);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct spool *s = open_spool(&o);
        struct spool_ticket *a = begin(s, 0, 1);
        (void)begin(s, 1, 2);
        settle(s, begin(s, 0, 3), 3);
        spool_progress(a, &(struct spool_progress){ 17, -5, 900 });
        (void)raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    for (int round = 0; round < 2; round++) {
        /* In the first round nothing is acknowledged: the second finds the same. */
        struct spool *s = open_spool(&o);
        struct spool_item i;
        unsigned seen = 0;
        assert_int_equal(stats(s).adopted, 3);
        assert_int_equal(stats(s).crashed, 2);
        while (spool_next(s, &i) == ERR_OK) {
            unsigned n = number_of(i.id);
            seen |= 1u << n;
            assert_int_equal(i.crashed, n != 3);
            if (n == 1) {
                assert_true(str_eqz(i.text, "open 1"));
                assert_int_equal(i.progress.output_tokens, 17);
                assert_int_equal(i.progress.cost_nano, -5);
                assert_int_equal(i.progress.duration_ms, 900);
            }
            if (round == 1) spool_done(s, &i.ref, 1);
        }
        assert_int_equal(seen, 2 | 4 | 8);
        spool_free(s);
    }
    assert_int_equal(count_dirs(*state), 0);
}

/* What the killed child said that it had done, in memory shared with its parent. */
struct log {
    _Atomic unsigned begun, settled, acked; /* numbers below these are done for sure */
};

static void write_until_killed(struct place *p, struct log *log)
{
    enum { BATCH = 50 };
    struct spool_options o = options(p);
    o.max_bytes = 64 << 20;
    struct spool *s = open_spool(&o);
    struct spool_ticket *t[BATCH];
    for (unsigned n = 0;; n += BATCH) {
        /* A slow disk holds the keeper up: do not run into the bound. */
        while (stats(s).bytes > o.max_bytes / 2) wait_ms(1);
        for (unsigned i = 0; i < BATCH; i++) {
            t[i] = begin(s, i % 2, n + i);
            log->begun = n + i + 1;
        }
        for (unsigned i = 0; i < BATCH; i++) {
            settle(s, t[i], n + i);
            log->settled = n + i + 1;
        }
        /* Deliver the oldest, behind the writing, so that a few segments are always in use. */
        struct spool_item item;
        while (stats(s).settled > 300 && spool_next(s, &item) == ERR_OK) {
            spool_done(s, &item.ref, 1);
            log->acked++;
        }
    }
}

static void kill_9_in_the_middle_of_writing_loses_nothing(void **state)
{
    struct log *log = mmap(NULL, sizeof *log, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                           -1, 0);
    assert_true(log != MAP_FAILED);
    for (unsigned round = 0; round < 12; round++) {
        memset(log, 0, sizeof *log);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) write_until_killed(*state, log);
        UNTIL(log->begun > 200);
        wait_ms(1 + 3 * (long)round);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);

        struct spool_options o = options(*state);
        struct spool *s = open_spool(&o);
        struct spool_item i;
        unsigned begun = log->begun, settled = log->settled, acked = log->acked, out = 0;
        unsigned char *seen = calloc(begun + 2, 1);
        assert_non_null(seen);
        while (spool_next(s, &i) == ERR_OK) {
            unsigned n = number_of(i.id);
            char want[64];
            assert_in_range(n, 0, begun);
            assert_int_equal(seen[n], 0);
            seen[n] = 1;
            out++;
            if (i.crashed) assert_true(n >= settled);
            (void)snprintf(want, sizeof want, "%s %u", i.crashed ? "open" : "settled", n);
            assert_true(str_eqz(i.text, want));
            spool_done(s, &i.ref, 1);
        }
        /* Each record was acknowledged before, or came out now: one that the kill hit between its
         * acknowledgement and our note of it may be missing from both. */
        assert_in_range(out + acked, begun - 1, begun + 1);
        /* The record that was being written when the kill came. */
        assert_in_range(stats(s).damaged, 0, 1);
        free(seen);
        spool_free(s);
        assert_int_equal(count_dirs(*state), 0);
    }
    (void)munmap(log, sizeof *log);
}

/* The only segment with records of the only directory, mapped. */
static char *map_segment_of_the_dead(const struct place *p, size_t *ret_size)
{
    char path[1024] = "";
    char *found = NULL;
    struct dirent *e, *f;
    DIR *d = opendir(p->dir), *below;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (!uuid_is_valid(str_of(e->d_name))) continue;
        (void)snprintf(path, sizeof path, "%s/%s", p->dir, e->d_name);
        below = opendir(path);
        assert_non_null(below);
        while ((f = readdir(below)) != NULL) {
            struct stat st;
            size_t n = strlen(path);
            if (!str_ends(str_of(f->d_name), STR(".seg"))) continue;
            (void)snprintf(path + n, sizeof path - n, "/%s", f->d_name);
            int fd = open(path, O_RDWR);
            assert_true(fd >= 0 && fstat(fd, &st) == 0);
            char *m = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            (void)close(fd);
            path[n] = '\0';
            if (segment_is_frame(m, (size_t)st.st_size, sizeof(struct segment_header))) {
                assert_null(found);
                found = m;
                *ret_size = (size_t)st.st_size;
            } else {
                (void)munmap(m, (size_t)st.st_size);
            }
        }
        (void)closedir(below);
    }
    (void)closedir(d);
    assert_non_null(found);
    return found;
}

/* Offset of the frame number i. */
static size_t frame_offset(char *map, unsigned i)
{
    size_t at = sizeof(struct segment_header);
    while (i-- > 0) at += segment_at(map, at)->length;
    return at;
}

static void torn_records_are_skipped_and_the_rest_is_read(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    size_t size = 0;
    for (unsigned n = 0; n < 6; n++) settle(s, begin(s, 0, n), n);
    spool_free(s);
    char *map = map_segment_of_the_dead(*state, &size);
    /* Frames are OPEN 0, SETTLE 0, OPEN 1, … The SETTLE of 1 lost a byte of its text, the OPEN of 3
     * its length, and the last record is cut in the middle. */
    struct segment_frame *f = segment_at(map, frame_offset(map, 3));
    size_t open3 = frame_offset(map, 6), last = frame_offset(map, 11);
    ((char *)(f + 1))[10] ^= 1;
    segment_at(map, open3)->length = 0;
    memset(map + last + 50, 0, 80);
    (void)munmap(map, size);

    s = open_spool(&o);
    struct spool_item i;
    unsigned settled = 0, crashed = 0;
    while (spool_next(s, &i) == ERR_OK) {
        unsigned *set = i.crashed ? &crashed : &settled;
        *set |= 1u << number_of(i.id);
        spool_done(s, &i.ref, 1);
    }
    assert_int_equal(settled, 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4);
    assert_int_equal(crashed, 1 << 1 | 1 << 5);
    assert_int_equal(stats(s).damaged, 3);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

static void a_file_that_is_no_segment_is_kept(void **state)
{
    struct place *p = *state;
    char path[600];
    struct spool_options o = options(p);
    (void)snprintf(path, sizeof path, "%s/00000000-0000-7000-8000-000000000000", p->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/00000000-0000-7000-8000-000000000000/00000001.seg",
                   p->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 100; i++) (void)fputs("something else\n", f);
    (void)fclose(f);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    assert_int_equal(spool_next(s, &i), ERR_NOT_FOUND);
    assert_int_equal(stats(s).damaged, 1);
    wait_ms(20);
    spool_free(s);
    assert_int_equal(access(path, F_OK), 0);
}

static void a_full_spool_opens_nothing_but_settles(void **state)
{
    struct spool_options o = options(*state);
    struct spool_ticket *t[2000];
    struct spool_item item;
    char id[UUID_LEN + 1];
    unsigned n = 0;
    o.max_bytes = 8 * o.segment_bytes;
    o.sync_ms = 60000; /* the keeper shall not make room by moving while we look */
    struct spool *s = open_spool(&o);
    /* Again and again, because the last spare may be in the making at the first refusals. */
    for (int refusals = 0; refusals < 100 && n < ARRAY_LEN(t);) {
        if (spool_begin(s, 0, id_of(id, n), STR("team-a"), STR("text"), &t[n]) == ERR_OK)
            n++;
        else if (++refusals < 100)
            wait_ms(10);
    }
    assert_in_range(n, 100, ARRAY_LEN(t) - 1);
    assert_in_range(stats(s).bytes, o.max_bytes - 2 * o.segment_bytes, o.max_bytes);
    struct spool_ticket *none = NULL;
    assert_int_equal(spool_begin(s, 0, id_of(id, n), STR("team-a"), STR("text"), &none), ERR_LIMIT);
    assert_null(none);
    for (unsigned i = 0; i < n; i++) settle(s, t[i], i);
    assert_true(stats(s).bytes > o.max_bytes);
    assert_int_equal(spool_put(s, 0, id_of(id, n), STR("team-a"), STR("text")), ERR_LIMIT);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(spool_next(s, &item), ERR_OK);
        spool_done(s, &item.ref, 1);
    }
    assert_int_equal(spool_next(s, &item), ERR_NOT_FOUND);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

static void records_have_a_largest_size(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    char *text = calloc(1, o.segment_bytes);
    char id[UUID_LEN + 1];
    struct spool_ticket *t = begin(s, 0, 1);
    assert_non_null(text);
    assert_int_equal(spool_put(s, 0, id_of(id, 2), STR("a"), str_n(text, o.segment_bytes / 4)),
                     ERR_LIMIT);
    assert_int_equal(spool_settle(s, t, str_n(text, o.segment_bytes / 4)), ERR_LIMIT);
    settle(s, t, 1);
    free(text);
    spool_free(s);
}

static void disk_is_given_back_while_a_long_request_runs(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_ticket *slow = begin(s, 0, 1000000);
    struct spool_item item;
    spool_progress(slow, &(struct spool_progress){ 5, 6, 7 });
    for (unsigned n = 0; n < 20000; n++) {
        settle(s, begin(s, 0, n), n);
        assert_int_equal(spool_next(s, &item), ERR_OK);
        assert_int_equal(number_of(item.id), n);
        spool_done(s, &item.ref, 1);
        if (n % 500 == 0) UNTIL(stats(s).bytes <= 20 * o.segment_bytes);
    }
    assert_true(stats(s).moved > 0);
    /* It is killed here, as far as this record is concerned: it must come with its progress. */
    spool_abandon(s, slow);
    spool_free(s);
    s = open_spool(&o);
    assert_int_equal(stats(s).crashed, 1);
    assert_int_equal(spool_next(s, &item), ERR_OK);
    assert_int_equal(number_of(item.id), 1000000);
    assert_true(item.crashed);
    assert_int_equal(item.progress.output_tokens, 5);
    assert_int_equal(item.progress.duration_ms, 7);
    spool_done(s, &item.ref, 1);
    assert_int_equal(spool_next(s, &item), ERR_NOT_FOUND);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

static void a_moved_record_settles_and_is_forgotten_everywhere(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_ticket *slow = begin(s, 0, 1000000);
    struct spool_item item;
    for (unsigned n = 0; n < 3000; n++) settle(s, begin(s, 0, n), n); /* nothing is delivered yet */
    while (spool_next(s, &item) == ERR_OK) spool_done(s, &item.ref, 1);
    UNTIL(stats(s).moved > 0);
    settle(s, slow, 1000000);
    assert_int_equal(spool_next(s, &item), ERR_OK);
    assert_int_equal(number_of(item.id), 1000000);
    spool_done(s, &item.ref, 1);
    UNTIL(stats(s).segments <= 3);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

/* --- threads --- */

struct crew {
    struct spool *s;
    unsigned worker;
    _Atomic bool *stop;
    pthread_t thread;
};

enum { PER_WORKER = 20000, KEPT_OPEN = 40 };

static void *work(void *arg)
{
    struct crew *c = arg;
    struct spool_ticket *t[KEPT_OPEN] = { NULL };
    unsigned number[KEPT_OPEN] = { 0 };
    for (unsigned n = 0; n < PER_WORKER; n++) {
        unsigned slot = n * 7 % KEPT_OPEN;
        if (t[slot] != NULL) {
            spool_progress(t[slot], &(struct spool_progress){ n, n, n });
            settle(c->s, t[slot], number[slot]);
        }
        number[slot] = c->worker * PER_WORKER + n;
        t[slot] = begin(c->s, c->worker, number[slot]);
    }
    for (unsigned i = 0; i < KEPT_OPEN; i++)
        if (t[i] != NULL) settle(c->s, t[i], number[i]);
    return NULL;
}

/* Acknowledges on another thread than the one that reads, as the bus does. */
struct acks {
    struct spool *s;
    pthread_mutex_t lock;
    struct spool_item items[64];
    size_t n;
    _Atomic bool stop;
};

static void *acknowledge(void *arg)
{
    struct acks *a = arg;
    bool stop;
    do {
        stop = a->stop;
        (void)pthread_mutex_lock(&a->lock);
        for (size_t i = 0; i < a->n; i++) spool_done(a->s, &a->items[i].ref, 1);
        a->n = 0;
        (void)pthread_mutex_unlock(&a->lock);
        (void)sched_yield();
    } while (!stop);
    return NULL;
}

static void workers_reader_and_acknowledgements_go_on_together(void **state)
{
    struct spool_options o = options(*state);
    o.max_bytes = 64 << 20;
    struct spool *s = open_spool(&o);
    struct crew crew[2];
    static struct acks a;
    pthread_t acker;
    unsigned char *seen = calloc(2 * PER_WORKER, 1);
    unsigned out = 0;
    assert_non_null(seen);
    a = (struct acks){ .s = s };
    (void)pthread_mutex_init(&a.lock, NULL);
    for (unsigned i = 0; i < 2; i++) {
        crew[i] = (struct crew){ .s = s, .worker = i };
        assert_int_equal(pthread_create(&crew[i].thread, NULL, work, &crew[i]), 0);
    }
    assert_int_equal(pthread_create(&acker, NULL, acknowledge, &a), 0);
    while (out < 2 * PER_WORKER) {
        struct spool_item item;
        (void)pthread_mutex_lock(&a.lock);
        if (a.n < ARRAY_LEN(a.items) && spool_next(s, &item) == ERR_OK) {
            unsigned n = number_of(item.id);
            assert_in_range(n, 0, 2 * PER_WORKER - 1);
            assert_int_equal(seen[n], 0);
            seen[n] = 1;
            out++;
            a.items[a.n++] = item;
        }
        (void)pthread_mutex_unlock(&a.lock);
    }
    for (unsigned i = 0; i < 2; i++) (void)pthread_join(crew[i].thread, NULL);
    a.stop = true;
    (void)pthread_join(acker, NULL);
    (void)pthread_mutex_destroy(&a.lock);
    free(seen);
    assert_int_equal(stats(s).settled, 0);
    assert_int_equal(stats(s).open, 0);
    UNTIL(stats(s).segments <= 4);
    spool_sync(s);
    assert_int_equal(stats(s).sync_errors, 0);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

/* --- texts that begin as those of their opening do --- */

static struct str long_text(char out[512], const char *end)
{
    memset(out, 'x', 300);
    (void)snprintf(out + 300, 212, "%s", end);
    return str_of(out);
}

static struct spool_ticket *begin_long(struct spool *s, unsigned n)
{
    char id[UUID_LEN + 1], text[512];
    struct spool_ticket *t = NULL;
    assert_int_equal(spool_begin(s, 0, id_of(id, n), STR("team-a"), long_text(text, "open"), &t),
                     ERR_OK);
    spool_mark(t, 300, n);
    return t;
}

/* Every second one as a tail, by what was marked. */
static void settle_long(struct spool *s, struct spool_ticket *t, unsigned n)
{
    char text[512];
    assert_int_equal(spool_marked(t, n + 1), 0);
    assert_int_equal(spool_marked(t, n), 300);
    enum err e = n % 2 == 0 ? spool_settle(s, t, long_text(text, "settled with more"))
                            : spool_settle_tail(s, t, 300, STR("settled with more"));
    assert_int_equal(e, ERR_OK);
}

static void a_mark_goes_with_its_record(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    struct spool_ticket *t = begin_long(s, 1);
    spool_mark(t, UINT16_MAX + 1, 1); /* more than a frame can say */
    assert_int_equal(spool_marked(t, 1), 0);
    spool_mark(t, 300, 1);
    settle_long(s, t, 1);
    assert_int_equal(spool_next(s, &i), ERR_OK);
    spool_done(s, &i.ref, 1);
    t = begin(s, 0, 2); /* with the same ticket */
    assert_int_equal(spool_marked(t, 1), 0);
    settle(s, t, 2);
    assert_int_equal(spool_next(s, &i), ERR_OK);
    spool_done(s, &i.ref, 1);
    spool_free(s);
}

/* The texts of all that comes out are whole, but that of `lost`. Delivers them. */
static unsigned read_long(struct spool *s, unsigned lost, bool stored_once)
{
    char want[512], got[1024];
    struct spool_item i, again;
    unsigned n = 0;
    for (; spool_next(s, &i) == ERR_OK; n++) {
        int len = snprintf(got, sizeof got, "%.*s%.*s", STR_ARG(i.head), STR_ARG(i.text));
        struct str text = long_text(want, i.crashed ? "open" : "settled with more");
        if (number_of(i.id) == lost) {
            assert_int_equal(i.head.n, 0);
            assert_true(str_ends(text, i.text));
        } else {
            assert_true(str_eq(str_n(got, (size_t)len), text));
            if (stored_once && !i.crashed) assert_in_range(i.text.n, 1, 40);
        }
        spool_look(s, &i.ref, &again);
        assert_true(str_eq(again.text, i.text) && str_eq(again.head, i.head));
        spool_done(s, &i.ref, 1);
    }
    return n;
}

static void what_opening_and_end_share_is_stored_once(void **state)
{
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_ticket *open[200];
    for (unsigned n = 0; n < 200; n++) open[n] = begin_long(s, n); /* fills segments */
    for (unsigned n = 0; n < 200; n++) settle_long(s, open[n], n);
    assert_int_equal(read_long(s, 1000, true), 200);
    UNTIL(stats(s).segments <= 4);
    spool_free(s);
    s = open_spool(&o);
    /* Some for a successor: settled, open, and one of each whose opening is lost. */
    for (unsigned n = 0; n < 10; n++) open[n] = begin_long(s, n);
    for (unsigned n = 0; n < 6; n++) settle_long(s, open[n], n);
    spool_free(s);
    size_t size = 0;
    char *map = map_segment_of_the_dead(*state, &size);
    size_t at = sizeof(struct segment_header);
    bool damaged, torn = false;
    for (; segment_next(map, size, &at, &damaged) == ERR_OK; at += segment_at(map, at)->length) {
        struct segment_frame *f = segment_at(map, at);
        if (torn || f->type != SEGMENT_OPEN || number_of(str_n(f->id, UUID_LEN)) != 3 ||
            segment_state(f) != SEGMENT_LIVE)
            continue;
        f->crc ^= 1;
        torn = true;
        at += 8;
        break;
    }
    (void)munmap(map, size);
    assert_true(torn);
    s = open_spool(&o);
    assert_int_equal(read_long(s, 3, true), 10);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

/* --- segments that are used again --- */

static unsigned count_segments(const struct place *p)
{
    char path[1024];
    unsigned n = 0;
    struct dirent *e, *f;
    DIR *d = opendir(p->dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (!uuid_is_valid(str_of(e->d_name))) continue;
        (void)snprintf(path, sizeof path, "%s/%s", p->dir, e->d_name);
        DIR *below = opendir(path);
        assert_non_null(below);
        while ((f = readdir(below)) != NULL) n += str_ends(str_of(f->d_name), STR(".seg")) ? 1 : 0;
        (void)closedir(below);
    }
    (void)closedir(d);
    return n;
}

/* Settles and delivers records 0 … n-1, then opens n and settles n + 1; neither is delivered. */
static void use_often_and_die(const struct place *p, unsigned n)
{
    struct spool_options o = options(p);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    for (unsigned k = 0; k < n; k++) {
        settle(s, begin(s, 0, k), k);
        if (spool_next(s, &i) != ERR_OK || number_of(i.id) != k) _exit(1);
        spool_done(s, &i.ref, 1);
        if (k % 100 == 99) wait_ms(10); /* the keeper takes back what is done */
    }
    (void)begin(s, 0, n);
    settle(s, begin(s, 0, n + 1), n + 1);
    if (count_segments(p) > 12) _exit(2);
    (void)raise(SIGKILL);
}

static void what_an_earlier_use_left_in_a_segment_never_comes_out(void **state)
{
    enum { N = 3000 }; /* some forty segments */
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) use_often_and_die(*state, N);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct spool_options o = options(*state);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    unsigned seen = 0;
    while (spool_next(s, &i) == ERR_OK) {
        assert_true(i.adopted);
        assert_in_range(number_of(i.id), N, N + 1);
        assert_int_equal(i.crashed, number_of(i.id) == N);
        seen++;
        spool_done(s, &i.ref, 1);
    }
    assert_int_equal(seen, 2);
    assert_int_equal(stats(s).damaged, 0);
    spool_free(s);
    assert_int_equal(count_dirs(*state), 0);
}

/* --- what version 1 of the format left --- */

static size_t put_frame(char *map, size_t at, enum segment_type type, unsigned n,
                        uint32_t open_offset)
{
    char id[64], text[64];
    (void)snprintf(text, sizeof text, "%s %u", type == SEGMENT_OPEN ? "open" : "settled", n);
    struct segment_entry e = { .type = type,
                               .id = id_of(id, n),
                               .name = STR("team-a"),
                               .text = str_of(text),
                               .open_number = open_offset > 0 ? 7 : 0,
                               .open_offset = open_offset };
    return at + segment_append(map, at, &e);
}

static void a_spool_of_version_1_is_read(void **state)
{
    const struct place *p = *state;
    char path[1200], map[4096] __attribute__((aligned(64))) = "";
    struct segment_header *h = (struct segment_header *)(void *)map;
    (void)mkdir(p->dir, 0700);
    (void)snprintf(path, sizeof path, "%s/01944d2e-8a00-7cc3-98c4-dc0c0c07398f", p->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    segment_init(map, 7);
    h->version = 1;
    h->order = 3;
    size_t at = put_frame(map, sizeof *h, SEGMENT_OPEN, 0, 0);
    at = put_frame(map, at, SEGMENT_SETTLE, 0, sizeof *h);
    at = put_frame(map, at, SEGMENT_OPEN, 1, 0);
    size_t last = at;
    at = put_frame(map, at, SEGMENT_SETTLE, 2, 0);
    /* Its checksums began with 0 whatever the order. */
    h->order = 4;
    assert_true(segment_is_frame(map, sizeof map, last));
    h->version = 2;
    assert_false(segment_is_frame(map, sizeof map, last));
    h->version = 1;
    (void)snprintf(path + strlen(path), 16, "/00000007.seg");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(map, 1, sizeof map, f), sizeof map);
    (void)fclose(f);

    struct spool_options o = options(p);
    struct spool *s = open_spool(&o);
    struct spool_item i;
    unsigned settled = 0, crashed = 0;
    while (spool_next(s, &i) == ERR_OK) {
        *(i.crashed ? &crashed : &settled) |= 1u << number_of(i.id);
        spool_done(s, &i.ref, 1);
    }
    assert_int_equal(settled, 1 << 0 | 1 << 2);
    assert_int_equal(crashed, 1 << 1);
    assert_int_equal(stats(s).damaged, 0);
    spool_free(s);
    assert_int_equal(count_dirs(p), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        T(what_is_settled_comes_out_once),
        T(what_is_not_delivered_stays_for_the_next),
        T(a_living_neighbour_is_left_alone),
        T(open_records_of_the_dead_come_out_as_crashed),
        T(kill_9_in_the_middle_of_writing_loses_nothing),
        T(torn_records_are_skipped_and_the_rest_is_read),
        T(what_opening_and_end_share_is_stored_once),
        T(a_mark_goes_with_its_record),
        T(what_an_earlier_use_left_in_a_segment_never_comes_out),
        T(a_spool_of_version_1_is_read),
        T(a_file_that_is_no_segment_is_kept),
        T(a_full_spool_opens_nothing_but_settles),
        T(records_have_a_largest_size),
        T(disk_is_given_back_while_a_long_request_runs),
        T(a_moved_record_settles_and_is_forgotten_everywhere),
        T(workers_reader_and_acknowledgements_go_on_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
