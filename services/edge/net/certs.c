/* SPDX-License-Identifier: Apache-2.0 */
#include "certs.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/map.h"

enum { FILES = 3, MAX_CONTEXTS = 4096 };

/* What a file was when it was read. */
struct stamp {
    time_t s;
    long ns;
    off_t size;
    ino_t inode;
};

struct context {
    char *file[FILES]; /* CA, certificate, key; NULL: none */
    struct stamp stamp[FILES];
    struct tls_context *tls;
};

struct certs {
    pthread_mutex_t lock;
    struct context listener;
    struct map upstreams; /* "ca\ncert\nkey" -> struct context */
};

static struct stamp stamp_of(const char *file)
{
    struct stat st;
    if (file == NULL || stat(file, &st) != 0) return (struct stamp){ 0 };
    return (struct stamp){ st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_size, st.st_ino };
}

static bool same(struct stamp a, struct stamp b)
{
    return a.s == b.s && a.ns == b.ns && a.size == b.size && a.inode == b.inode;
}

static bool is_current(const struct context *x)
{
    for (int i = 0; i < FILES; i++)
        if (!same(x->stamp[i], stamp_of(x->file[i]))) return false;
    return true;
}

/* Stamps first: what is written meanwhile is seen as a change by the next look. */
static void note_stamps(struct context *x)
{
    for (int i = 0; i < FILES; i++) x->stamp[i] = stamp_of(x->file[i]);
}

static char *file_name(struct str s)
{
    return s.n > 0 ? str_dupz(s) : NULL;
}

static void context_done(struct context *x)
{
    tls_context_unref(x->tls);
    for (int i = 0; i < FILES; i++) free(x->file[i]);
}

static enum err load_listener(struct context *x, struct why *why)
{
    struct tls_context *tls;
    note_stamps(x);
    enum err e = tls_server_context(x->file[1], x->file[2], &tls, why);
    if (e != ERR_OK) return e;
    tls_context_unref(x->tls);
    x->tls = tls;
    return ERR_OK;
}

enum err certs_new(const char *cert_file, const char *key_file, struct certs **ret, struct why *why)
{
    struct certs *c = xcalloc(1, sizeof *c);
    enum err e = ERR_OK;
    pthread_mutex_init(&c->lock, NULL);
    map_init(&c->upstreams, MAX_CONTEXTS);
    c->listener.file[1] = file_name(str_of(cert_file != NULL ? cert_file : ""));
    c->listener.file[2] = file_name(str_of(key_file != NULL ? key_file : ""));
    if (c->listener.file[1] != NULL && c->listener.file[2] != NULL)
        e = load_listener(&c->listener, why);
    if (e == ERR_OK)
        *ret = c;
    else
        certs_free(c);
    return e;
}

void certs_free(struct certs *c)
{
    struct map_entry *it;
    size_t i = 0;
    if (c == NULL) return;
    while ((it = map_next(&c->upstreams, &i)) != NULL) {
        context_done(it->value);
        free(it->value);
    }
    map_done(&c->upstreams);
    context_done(&c->listener);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct tls_context *certs_listener(struct certs *c)
{
    if (c->listener.file[1] == NULL) return NULL; /* never changes */
    pthread_mutex_lock(&c->lock);
    struct tls_context *t = tls_context_ref(c->listener.tls);
    pthread_mutex_unlock(&c->lock);
    return t;
}

static enum err load_upstream(struct context *x, const struct snap_upstream *u, struct why *why)
{
    struct tls_context *tls;
    struct why inner;
    note_stamps(x);
    enum err e = tls_client_context(x->file[0], x->file[1], x->file[2], &tls, &inner);
    if (e != ERR_OK) return why_set(why, e, "upstream %.*s: %s", STR_ARG(u->slug), inner.text);
    tls_context_unref(x->tls);
    x->tls = tls;
    return ERR_OK;
}

static enum err find_upstream(struct certs *c, const struct snap_upstream *u, struct context **ret,
                              struct why *why)
{
    struct buf key;
    buf_init(&key, 16384);
    enum err e = buf_printf(&key, "%.*s\n%.*s\n%.*s", STR_ARG(u->tls_ca_file),
                            STR_ARG(u->tls_cert_file), STR_ARG(u->tls_key_file));
    struct context *x = e == ERR_OK ? map_get(&c->upstreams, buf_str(&key)) : NULL;
    if (e == ERR_OK && x == NULL) {
        x = xcalloc(1, sizeof *x);
        x->file[0] = file_name(u->tls_ca_file);
        x->file[1] = file_name(u->tls_cert_file);
        x->file[2] = file_name(u->tls_key_file);
        e = map_put(&c->upstreams, buf_str(&key), x, NULL);
        if (e != ERR_OK) {
            context_done(x);
            free(x);
            (void)why_set(why, e, "too many TLS settings of upstreams");
        }
    }
    buf_done(&key);
    if (e == ERR_OK) *ret = x;
    return e;
}

enum err certs_upstream(struct certs *c, const struct snap_upstream *u, struct tls_context **ret,
                        struct why *why)
{
    struct context *x;
    pthread_mutex_lock(&c->lock);
    enum err e = find_upstream(c, u, &x, why);
    if (e == ERR_OK && (x->tls == NULL || !is_current(x))) e = load_upstream(x, u, why);
    if (e == ERR_OK) *ret = tls_context_ref(x->tls);
    pthread_mutex_unlock(&c->lock);
    return e;
}

unsigned certs_check(struct certs *c, struct why *why)
{
    unsigned changes = CERTS_SAME;
    struct map_entry *it;
    size_t i = 0;
    pthread_mutex_lock(&c->lock);
    if (c->listener.tls != NULL && !is_current(&c->listener))
        changes |= load_listener(&c->listener, why) == ERR_OK ? CERTS_LISTENER : CERTS_BAD;
    while ((it = map_next(&c->upstreams, &i)) != NULL)
        if (!is_current(it->value)) changes |= CERTS_UPSTREAMS;
    pthread_mutex_unlock(&c->lock);
    return changes;
}
