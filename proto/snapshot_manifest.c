/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests and pages: which parts a revision is made of. Pure, any thread. */
#include <stdlib.h>

#include "proto/envelope.h"
#include "proto/snapshot.h"
#include "rt/crypto.h"

enum { MANIFEST_MAX_PAGES = 4096, PAGE_MAX_PARTS = 16384 };

/* 64 lower-case hexadecimal digits. */
static bool take_digest(struct str s, char out[65])
{
    unsigned char raw[SHA256_LEN];
    char again[SHA256_HEX_LEN + 1];
    if (s.p == NULL || hex_decode(s, raw, sizeof(raw)) != ERR_OK) return false;
    hex_encode(raw, sizeof(raw), again);
    return str_eqz(s, again) && str_copyz(out, 65, s);
}

void manifest_digest(const struct snap_digest *pages, size_t n, char out[65])
{
    struct buf text;
    buf_init(&text, (size_t)MANIFEST_MAX_PAGES * 65);
    for (size_t i = 0; i < n; i++)
        if (buf_append(&text, pages[i].hex, 64) != ERR_OK || buf_append_char(&text, '\n') != ERR_OK)
            abort();
    crypto_sha256_hex(buf_str(&text), out);
    buf_done(&text);
}

static enum err take_pages(const struct json *list, struct manifest *m, struct why *why)
{
    size_t n = json_len(list);
    if (!json_is(list, JSON_ARRAY) || n > MANIFEST_MAX_PAGES)
        return why_set(why, ERR_INVALID, "pages: must be a list of at most %d digests",
                       MANIFEST_MAX_PAGES);
    m->pages = calloc(n + 1, sizeof(*m->pages));
    if (m->pages == NULL) return ERR_NOMEM;
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it))
        if (!take_digest(json_str(it), m->pages[m->pages_n++].hex))
            return why_set(why, ERR_INVALID, "pages[%zu]: not a digest", m->pages_n - 1);
    return ERR_OK;
}

enum err manifest_parse(struct str text, struct manifest *ret, struct why *why)
{
    struct json *o = NULL;
    struct manifest m = { 0 };
    uint64_t format, min_reader;
    char computed[65];
    enum err e = envelope_parse(text, &o, why);
    if (e != ERR_OK) return e;
    if (json_get_u64(o, "format", &format) != ERR_OK ||
        json_get_u64(o, "min_reader", &min_reader) != ERR_OK ||
        json_get_u64(o, "revision", &m.revision) != ERR_OK ||
        !take_digest(json_str(json_get(o, "digest")), m.digest)) {
        e = why_set(why, ERR_INVALID, "not a manifest: format, min_reader, revision or digest");
        goto out;
    }
    /* Formats N and N-1 are read; one before the first does not exist. */
    if (min_reader > SNAPSHOT_FORMAT || format + 1 < SNAPSHOT_FORMAT || format == 0) {
        e = why_set(why, ERR_UNSUPPORTED,
                    "revision %llu has format %llu for readers of %llu on, this one reads %d",
                    (unsigned long long)m.revision, (unsigned long long)format,
                    (unsigned long long)min_reader, SNAPSHOT_FORMAT);
        goto out;
    }
    e = take_pages(json_get(o, "pages"), &m, why);
    if (e != ERR_OK) goto out;
    manifest_digest(m.pages, m.pages_n, computed);
    if (strcmp(computed, m.digest) != 0) {
        e = why_set(why, ERR_INVALID, "digest: is not that of the pages");
        goto out;
    }
    *ret = m;
    m.pages = NULL;
out:
    manifest_done(&m);
    json_free(o);
    return e;
}

void manifest_done(struct manifest *m)
{
    free(m->pages);
    *m = (struct manifest){ 0 };
}

enum err page_parse(struct str text, struct snap_digest **ret, size_t *ret_n, struct why *why)
{
    struct json *o = NULL;
    struct snap_digest *parts = NULL;
    size_t n = 0;
    enum err e = json_parse(text, PART_MAX_BYTES, &o, why);
    if (e != ERR_OK) return e;
    const struct json *list = json_get(o, "parts");
    if (!str_eqz(json_str(json_get(o, "kind")), "index") || !json_is(list, JSON_ARRAY) ||
        json_len(list) > PAGE_MAX_PARTS) {
        e = why_set(why, ERR_INVALID, "not a page: kind or parts");
        goto out;
    }
    parts = calloc(json_len(list) + 1, sizeof(*parts));
    if (parts == NULL) {
        e = ERR_NOMEM;
        goto out;
    }
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it)) {
        uint64_t bytes;
        if (json_get_u64(it, "bytes", &bytes) != ERR_OK || bytes > PART_MAX_BYTES ||
            !take_digest(json_str(json_get(it, "digest")), parts[n].hex)) {
            e = why_set(why, ERR_INVALID, "parts[%zu]: digest or bytes", n);
            goto out;
        }
        n++;
    }
    *ret = parts;
    *ret_n = n;
    parts = NULL;
out:
    free(parts);
    json_free(o);
    return e;
}
