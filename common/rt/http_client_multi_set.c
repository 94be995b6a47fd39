/* SPDX-License-Identifier: Apache-2.0 */
/* What curl is told of a server, and of each request. The loop's thread. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/http_client_multi_impl.h"

enum { NEVER_MS = 86400000 /* how long things may take is others' affair */ };

long http_multi_version(const struct http_multi_options *o)
{
    bool tls = str_starts(str_of(o->url), STR("https://"));
    if (o->version == HTTP_MULTI_1_1 || (o->version == HTTP_MULTI_AUTO && !tls))
        return CURL_HTTP_VERSION_1_1;
    return tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
}

/* What is the same for all transfers. Nothing comes from the environment: no proxy, no exceptions
 * from one. */
bool http_multi_set_once(const struct http_multi *m, CURL *h)
{
#define SET(option, value) (curl_easy_setopt(h, option, value) == CURLE_OK)
    bool ok = SET(CURLOPT_NOSIGNAL, 1L) && SET(CURLOPT_PROTOCOLS_STR, "http,https") &&
              SET(CURLOPT_FOLLOWLOCATION, 0L) && SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED) &&
              SET(CURLOPT_HTTP_CONTENT_DECODING, 0L) && SET(CURLOPT_URL, m->url) &&
              SET(CURLOPT_HTTP_VERSION, m->http_version) && SET(CURLOPT_PIPEWAIT, 1L) &&
              SET(CURLOPT_CONNECTTIMEOUT_MS, (long)NEVER_MS) &&
              SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) &&
              SET(CURLOPT_SSL_VERIFYPEER, 1L) && SET(CURLOPT_SSL_VERIFYHOST, 2L) &&
              SET(CURLOPT_SHARE, m->share) &&
              SET(CURLOPT_HEADERFUNCTION, http_transfer_on_header) &&
              SET(CURLOPT_WRITEFUNCTION, http_transfer_on_body) &&
              SET(CURLOPT_PREREQFUNCTION, http_transfer_on_connected) &&
              SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) &&
              SET(CURLOPT_PROXY, m->proxy != NULL ? m->proxy : "") && SET(CURLOPT_NOPROXY, "");
    if (ok && m->ca_file != NULL) ok = SET(CURLOPT_CAINFO, m->ca_file) && SET(CURLOPT_CAPATH, NULL);
    if (ok && m->cert_file != NULL)
        ok = SET(CURLOPT_SSLCERT, m->cert_file) && SET(CURLOPT_SSLKEY, m->key_file);
    if (!ok || m->proxy == NULL) return ok;
    ok = SET(CURLOPT_PROXYAUTH, (long)CURLAUTH_BASIC) &&
         SET(CURLOPT_SOCKS5_AUTH, (long)CURLAUTH_BASIC) &&
         SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE) &&
         SET(CURLOPT_HTTPPROXYTUNNEL, m->tunnel ? 1L : 0L) &&
         SET(CURLOPT_PROXY_SSL_VERIFYPEER, 1L) && SET(CURLOPT_PROXY_SSL_VERIFYHOST, 2L) &&
         SET(CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* socks5h: the proxy resolves. */
    if (ok && str_starts(str_of(m->proxy), STR("socks5://")))
        ok = SET(CURLOPT_PROXY, m->proxy + sizeof "socks5://" - 1) &&
             SET(CURLOPT_PROXYTYPE, (long)CURLPROXY_SOCKS5_HOSTNAME);
    if (ok && m->proxy_user != NULL) ok = SET(CURLOPT_PROXYUSERNAME, m->proxy_user);
    if (ok && m->proxy_password != NULL) ok = SET(CURLOPT_PROXYPASSWORD, m->proxy_password);
    if (ok && m->proxy_ca_file != NULL)
        ok = SET(CURLOPT_PROXY_CAINFO, m->proxy_ca_file) && SET(CURLOPT_PROXY_CAPATH, NULL);
    return ok;
}

static bool append(struct curl_slist **list, const char *line)
{
    struct curl_slist *more = curl_slist_append(*list, line);
    if (more != NULL) *list = more;
    return more != NULL;
}

/* Our fields, and the names of those that curl would add. */
static bool add_fields(struct http_transfer *t, const struct http_transfer_request *r)
{
    static const char *const quiet[] = { "Accept:", "Content-Type:", "User-Agent:" };
    bool has[ARRAY_LEN(quiet)] = { false }, ok = true;
    struct buf line;
    buf_init(&line, HTTP_MULTI_HEAD_MAX + 16);
    for (size_t i = 0; i < r->fields_n && ok; i++) {
        const struct http_field *f = &r->fields[i];
        for (size_t k = 0; k < ARRAY_LEN(quiet); k++)
            if (str_ieq(f->name, str_n(quiet[k], strlen(quiet[k]) - 1))) has[k] = true;
        buf_clear(&line);
        /* "name;" is one without a value, "name:" would be none. */
        enum err e = f->value.n > 0
                         ? buf_printf(&line, "%.*s: %.*s", STR_ARG(f->name), STR_ARG(f->value))
                         : buf_printf(&line, "%.*s;", STR_ARG(f->name));
        ok = e == ERR_OK && append(&t->fields, buf_z(&line));
    }
    if (line.data != NULL) explicit_bzero(line.data, line.len);
    buf_done(&line);
    for (size_t k = 0; k < ARRAY_LEN(quiet) && ok; k++)
        if (!has[k]) ok = append(&t->fields, quiet[k]);
    return ok && append(&t->fields, "Expect:") && append(&t->fields, "Proxy-Connection:");
}

static bool set_method(struct http_transfer *t, const struct http_transfer_request *r)
{
    CURL *h = t->easy;
    char *method = str_dupz(r->method);
    bool ok = SET(CURLOPT_CUSTOMREQUEST, r->is_head ? NULL : method);
    free(method);
    if (!ok) return false;
    if (r->is_head) return SET(CURLOPT_NOBODY, 1L);
    if (!r->has_body) return SET(CURLOPT_HTTPGET, 1L);
    t->body = malloc(r->body.n + 1);
    if (t->body == NULL) return false;
    t->body_n = r->body.n;
    if (r->body.n > 0) memcpy(t->body, r->body.p, r->body.n);
    return SET(CURLOPT_POST, 1L) && SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n) &&
           SET(CURLOPT_POSTFIELDS, t->body);
}

bool http_transfer_set(struct http_transfer *t, const struct http_transfer_request *r)
{
    struct http_multi *m = t->m;
    CURL *h = t->easy;
    char to[600];
    int n = snprintf(to, sizeof to, "::%s", m->connect_text != NULL ? m->connect_text : "");
    if (m->connect_text != NULL && ((size_t)n >= sizeof to || !append(&t->connect_to, to)))
        return false;
    if (m->resolve_text != NULL && !append(&t->resolve, m->resolve_text)) return false;
    t->target = str_dupz(r->target);
    return add_fields(t, r) && set_method(t, r) && SET(CURLOPT_PRIVATE, t) &&
           SET(CURLOPT_HEADERDATA, t) && SET(CURLOPT_WRITEDATA, t) && SET(CURLOPT_PREREQDATA, t) &&
           SET(CURLOPT_ERRORBUFFER, t->error) && SET(CURLOPT_REQUEST_TARGET, t->target) &&
           SET(CURLOPT_HTTPHEADER, t->fields) && SET(CURLOPT_CONNECT_TO, t->connect_to) &&
           SET(CURLOPT_RESOLVE, t->resolve) &&
           SET(CURLOPT_FRESH_CONNECT, r->last || m->once ? 1L : 0L) &&
           SET(CURLOPT_FORBID_REUSE, r->last || m->once ? 1L : 0L);
#undef SET
}
