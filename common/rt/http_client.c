/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libcurl easy handle, used again for each call so that its connections live on. It blocks the
 * thread that calls.
 */
#include "rt/http_client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>

struct http_client {
    CURL *curl;
    char error[CURL_ERROR_SIZE];
};

/* Where an answer goes. */
struct sink {
    struct buf *body;
    enum err e;
};

static void global_init(void)
{
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

struct http_client *http_client_new(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, global_init);
    struct http_client *c = xcalloc(1, sizeof *c);
    c->curl = curl_easy_init();
    ASSERT(c->curl != NULL);
    return c;
}

void http_client_free(struct http_client *c)
{
    if (c == NULL) return;
    curl_easy_cleanup(c->curl);
    free(c);
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct sink *s = ctx;
    s->e = buf_append(s->body, data, size * n);
    return s->e == ERR_OK ? size * n : CURL_WRITEFUNC_ERROR;
}

static enum err classify(CURLcode code, const struct sink *s)
{
    if (s->e != ERR_OK) return s->e;
    switch (code) {
    case CURLE_OK: return ERR_OK;
    case CURLE_OPERATION_TIMEDOUT: return ERR_TIMEOUT;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT: return ERR_UNAVAILABLE;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return ERR_INVALID;
    case CURLE_FILESIZE_EXCEEDED: return ERR_LIMIT;
    case CURLE_OUT_OF_MEMORY: return ERR_NOMEM;
    default: return ERR_IO;
    }
}

static bool set_method(CURL *h, const struct http_call *call)
{
    struct str method = str_of(call->method);
    if (str_eq(method, STR("HEAD"))) return curl_easy_setopt(h, CURLOPT_NOBODY, 1L) == CURLE_OK;
    bool takes_body = str_eq(method, STR("POST")) || str_eq(method, STR("PUT")) ||
                      str_eq(method, STR("PATCH"));
    if (call->body.n == 0 && !takes_body)
        return curl_easy_setopt(h, CURLOPT_HTTPGET, 1L) == CURLE_OK &&
               curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, call->method) == CURLE_OK;
    return curl_easy_setopt(h, CURLOPT_POST, 1L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.n) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_POSTFIELDS, call->body.n > 0 ? call->body.p : "") ==
               CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, call->method) == CURLE_OK;
}

static bool set_options(struct http_client *c, const struct http_call *call, struct sink *sink,
                        struct curl_slist *headers)
{
    CURL *h = c->curl;
    curl_easy_reset(h); /* keeps the connections */
    return curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->error) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_URL, call->url) == CURLE_OK &&
           (call->ca_file == NULL ||
            curl_easy_setopt(h, CURLOPT_CAINFO, call->ca_file) == CURLE_OK) &&
           curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)call->connect_timeout_ms) ==
               CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_WRITEDATA, sink) == CURLE_OK && set_method(h, call);
}

enum err http_client_call(struct http_client *c, const struct http_call *call, int *ret_status,
                          struct buf *ret_body, struct why *why)
{
    struct sink sink = { ret_body, ERR_OK };
    struct curl_slist *headers = NULL;
    size_t had = ret_body->len;
    long status = 0;
    enum err e = ERR_NOMEM;

    /* curl would wait a second for "100 Continue" and, for a body without a type, claim a form. */
    static const char *const quiet[] = { "Expect:", "Content-Type:" };
    bool typed = false;
    for (size_t i = 0; i < ARRAY_LEN(call->headers) && call->headers[i] != NULL; i++) {
        struct str line = str_of(call->headers[i]), name = str_cut(&line, ':');
        if (str_ieq(name, STR("content-type"))) typed = true;
        struct curl_slist *more = curl_slist_append(headers, call->headers[i]);
        if (more == NULL) goto out;
        headers = more;
    }
    for (size_t i = 0; i < (typed ? 1 : ARRAY_LEN(quiet)); i++) {
        struct curl_slist *more = curl_slist_append(headers, quiet[i]);
        if (more == NULL) goto out;
        headers = more;
    }

    c->error[0] = '\0';
    if (!set_options(c, call, &sink, headers)) {
        e = why_set(why, ERR_INTERNAL, "cannot prepare a call");
        goto out;
    }
    CURLcode code = curl_easy_perform(c->curl);
    e = classify(code, &sink);
    if (e != ERR_OK) {
        why_set(why, e, "%s", c->error[0] != '\0' ? c->error : curl_easy_strerror(code));
        ret_body->len = had;
        goto out;
    }
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    *ret_status = (int)status;
out:
    /* The handle would keep pointing at what is freed here, or is the caller's. */
    curl_easy_reset(c->curl);
    curl_slist_free_all(headers);
    return e;
}
