/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests, pages and parts as they come from the bus, and a part in the company of others, so
 * that references lead somewhere. */
#include <stdint.h>
#include <stdlib.h>

#include "proto/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void ignore(void *ctx, const char *pointer, const char *message)
{
    (void)ctx;
    if (pointer == NULL || message[0] == '\0') abort();
}

static void check_entities(struct str text)
{
    static const char *const kinds[] = { "namespaces", "upstreams", "matchers", "policies",
                                         "routes",     "models",    "keys",     "issuers" };
    struct json *o = NULL;
    if (json_parse(text, PART_MAX_BYTES, &o, NULL) != ERR_OK) return;
    const struct json *it = json_first(json_get(o, "items"));
    for (; it != NULL; it = json_next(it))
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
            snapshot_check_entity(kinds[k], it, ignore, NULL);
    json_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char namespaces[] = "{\"kind\":\"namespaces\",\"items\":[{\"id\":\"n1\",\"slug\":"
                                     "\"a\"}]}",
                      upstreams[] = "{\"kind\":\"upstreams\",\"items\":[{\"id\":\"u1\",\"slug\":"
                                    "\"u\"}]}";
    struct str text = str_n((const char *)data, n);
    struct str parts[] = { text, STR(""), STR("") };
    parts[1] = str_n(namespaces, sizeof(namespaces) - 1);
    parts[2] = str_n(upstreams, sizeof(upstreams) - 1);
    struct snapshot *s = NULL;
    struct manifest m;
    struct snap_digest *digests = NULL;
    size_t count;
    uint64_t ms;
    struct why why;
    if (snapshot_parse_window(text, &ms) == ERR_OK && n > 12) abort();
    if (manifest_parse(text, &m, &why) == ERR_OK) manifest_done(&m);
    if (page_parse(text, &digests, &count, &why) == ERR_OK) free(digests);
    for (size_t i = 1; i <= 3; i += 2) {
        if (snapshot_build(1, "", parts, i, &s, &why) != ERR_OK) continue;
        for (size_t k = 1; k < s->keys_n; k++)
            if (memcmp(s->keys[k - 1].hmac, s->keys[k].hmac, SNAP_HMAC_LEN) >= 0) abort();
        for (size_t r = 0; r < s->routes_n; r++)
            if (s->routes[r].upstream == NULL || s->routes[r].ns == NULL) abort();
        snapshot_unref(s);
    }
    check_entities(text);
    return 0;
}
