/* SPDX-License-Identifier: Apache-2.0 */
/* Request targets: whatever is accepted has no way out of its folder, and matching agrees with it.
 */
#include <stdlib.h>

#include "rt/http_path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_path(struct str p)
{
    if (p.n == 0 || p.p[0] != '/' || !str_is_utf8(p)) abort();
    for (size_t i = 0; i < p.n; i++)
        if ((unsigned char)p.p[i] < 0x20 || p.p[i] == 0x7f) abort();
    if (str_contains(p, STR("/../")) || str_contains(p, STR("/./")) || str_contains(p, STR("//")) ||
        str_ends(p, STR("/..")) || str_ends(p, STR("/.")))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const patterns[] = { "/", "/a", "/a/{}", "/{}/b/{}", "/files/*", "/*" };
    struct arena arena;
    struct http_target t;
    arena_init(&arena, 1 << 20);
    if (http_target_parse(str_n((const char *)data, n), &arena, &t) == ERR_OK) {
        check_path(t.path);
        bool any = false;
        for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
            struct str params[HTTP_PATH_PARAMS];
            any = http_path_match(&t, patterns[i], &arena, params);
            for (size_t k = 0; any && k < ARRAY_LEN(params); k++)
                if (params[k].p != NULL && params[k].n > t.path.n) abort();
        }
        if (!any) abort(); /* the last pattern takes all */
        (void)http_query_find(t.query, "a", &arena);
        (void)http_query_find(t.query, "", &arena);
    }
    arena_done(&arena);
    return 0;
}
