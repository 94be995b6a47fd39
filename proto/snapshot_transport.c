/* SPDX-License-Identifier: Apache-2.0 */
/* The shape of an upstream's transport: HTTP version, egress proxy. The decoder's thread. */
#include "proto/snapshot_decode.h"

enum {
    URL_MAX_BYTES = 1024,
    FILE_MAX_BYTES = 1024,
    USER_MAX_BYTES = 255, /* as many as SOCKS5 takes */
    SEALED_MAX_BYTES = 16384,
    STREAMS = 100, /* as many as servers usually allow */
    STREAMS_MAX = 1000
};

/* NULL, or what is wrong. */
static const char *split_proxy(struct str url, struct snap_proxy *out)
{
    static const struct {
        struct str scheme;
        enum snap_proxy_kind kind;
    } kinds[] = { { STR("http://"), SNAP_PROXY_HTTP },
                  { STR("https://"), SNAP_PROXY_HTTPS },
                  { STR("socks5://"), SNAP_PROXY_SOCKS5 } };
    struct str rest = url;
    for (size_t i = 0; i < ARRAY_LEN(kinds) && out->kind == SNAP_PROXY_NONE; i++) {
        if (!str_starts(url, kinds[i].scheme)) continue;
        out->kind = kinds[i].kind;
        rest = str_n(url.p + kinds[i].scheme.n, url.n - kinds[i].scheme.n);
    }
    if (out->kind == SNAP_PROXY_NONE) return "must begin with http://, https:// or socks5://";
    if (memchr(rest.p, '@', rest.n) != NULL)
        return "must hold no user and no password: they have members of their own beside it";
    const char *wrong = dec_host_port(&rest, &out->host, &out->port);
    if (wrong != NULL) return wrong;
    if (out->port == 0) return "must name its port, such as http://proxy.example.com:3128";
    return rest.n > 0 ? "must hold nothing behind its port" : NULL;
}

static struct str text(struct snap_decoder *d, const struct json *o, const char *key, size_t max)
{
    struct str s = dec_text(d, o, key, 0, 1, max);
    return s.p != NULL ? s : STR("");
}

static void decode_proxy(struct snap_decoder *d, const struct json *o, struct snap_proxy *out)
{
    static const char *const keys[] = { "url", "user", "password", "ca_file", NULL };
    const struct json *p = dec_member(o, "proxy");
    if (p == NULL) return;
    size_t mark = dec_enter(d, STR("proxy"));
    if (!json_is(p, JSON_OBJECT)) {
        dec_problem(d, "must be an object with a url");
        dec_leave(d, mark);
        return;
    }
    struct str url = dec_text(d, p, "url", DEC_REQUIRED, 1, URL_MAX_BYTES);
    const char *wrong = url.p != NULL ? split_proxy(url, out) : NULL;
    if (wrong != NULL) dec_problem_at(d, "url", "%s", wrong);
    if (url.p != NULL) out->url = url;
    out->user = text(d, p, "user", USER_MAX_BYTES);
    out->password_sealed = text(d, p, "password", SEALED_MAX_BYTES);
    out->ca_file = text(d, p, "ca_file", FILE_MAX_BYTES);
    if (memchr(out->user.p, ':', out->user.n) != NULL)
        dec_problem_at(d, "user", "must have no colon: the password is a member of its own");
    if (out->password_sealed.n > 0 && out->user.n == 0)
        dec_problem_at(d, "password", "needs a user");
    if (out->kind != SNAP_PROXY_HTTPS)
        dec_absent(d, p, "ca_file", "is for a proxy that is spoken to over https:// only");
    dec_known(d, p, keys);
    dec_leave(d, mark);
}

void dec_transport(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const transports[] = { [SNAP_DIRECT] = "direct", [SNAP_CURL] = "curl" };
    static const char *const versions[] = {
        [SNAP_HTTP_AUTO] = "auto", [SNAP_HTTP_1_1] = "1.1", [SNAP_HTTP_2] = "2"
    };
    static const char needs[] = "needs \"transport\": \"curl\" beside it";
    out->proxy = (struct snap_proxy){ .url = STR(""),
                                      .host = STR(""),
                                      .user = STR(""),
                                      .password_sealed = STR(""),
                                      .ca_file = STR("") };
    out->transport = (enum snap_transport)dec_word(d, o, "transport", transports,
                                                   ARRAY_LEN(transports), SNAP_DIRECT);
    out->max_streams = STREAMS;
    if (out->transport != SNAP_CURL) {
        dec_absent(d, o, "http", needs);
        dec_absent(d, o, "max_streams", needs);
        dec_absent(d, o, "proxy", needs);
        return;
    }
    out->http = (enum snap_http)dec_word(d, o, "http", versions, ARRAY_LEN(versions),
                                         SNAP_HTTP_AUTO);
    out->max_streams = (unsigned)dec_u64(d, o, "max_streams", 0, STREAMS, 1, STREAMS_MAX);
    if (out->http == SNAP_HTTP_1_1)
        dec_absent(d, o, "max_streams",
                   "is for HTTP/2 only: leave it out, or let \"http\" be "
                   "\"auto\" or \"2\"");
    decode_proxy(d, o, &out->proxy);
    if (out->proxy.kind != SNAP_PROXY_NONE && out->check.kind == SNAP_CHECK_TCP) {
        size_t mark = dec_enter(d, STR("health_check"));
        dec_problem_at(d, "type",
                       "a connection to the proxy tells nothing of the server: take "
                       "\"http\" or \"models\"");
        dec_leave(d, mark);
    }
}
