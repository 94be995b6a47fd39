/* SPDX-License-Identifier: Apache-2.0 */
/* What the scanner takes, it can walk and decode, with marks as without; requests are scanned as
 * the edge does. */
#include "services/edge/dialects/dialect.h"
#include "services/edge/dialects/responses_chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What comes with marks is what comes without. */
static void walk_both(struct js_val v, struct js_val marked)
{
    struct js_iter it, marked_it;
    struct str key, marked_key;
    struct js_val el, marked_el;
    ASSERT(v.mark == NULL && v.type == marked.type);
    ASSERT(v.raw.p == marked.raw.p && v.raw.n == marked.raw.n);
    js_iter_init(&it, v);
    js_iter_init(&marked_it, marked);
    while (js_next_member(&it, &key, &el)) {
        ASSERT(js_next_member(&marked_it, &marked_key, &marked_el));
        ASSERT(key.p == marked_key.p && key.n == marked_key.n);
        walk_both(el, marked_el);
    }
    ASSERT(!js_next_member(&marked_it, &marked_key, &marked_el));
    while (js_next_element(&it, &el)) {
        ASSERT(js_next_element(&marked_it, &marked_el));
        walk_both(el, marked_el);
    }
    ASSERT(!js_next_element(&marked_it, &marked_el));
}

static void walk(struct js_val v, int depth)
{
    struct js_iter it;
    struct str key;
    struct js_val el;
    if (depth > 200) return;
    if (js_is(v, JS_STRING)) {
        struct buf b;
        buf_init(&b, v.raw.n * 3);
        ASSERT(js_decode(v, &b) == ERR_OK);
        ASSERT(js_raw_prefix(v, b.len) == v.raw.n - 2);
        buf_done(&b);
    }
    js_iter_init(&it, v);
    if (js_is(v, JS_OBJECT))
        while (js_next_member(&it, &key, &el)) walk(el, depth + 1);
    else
        while (js_next_element(&it, &el)) walk(el, depth + 1);
}

/* What comes of a request of Responses is JSON again. */
static void as_chat(const struct request_scan *scan)
{
    struct responses_chat c;
    struct js_val v;
    if (responses_chat_make(scan, &c) == ERR_OK) {
        ASSERT(js_parse(buf_str(&c.messages), &v, NULL) == ERR_OK && js_is(v, JS_ARRAY));
        if (c.tools.len > 0) ASSERT(js_parse(buf_str(&c.tools), &v, NULL) == ERR_OK);
    }
    responses_chat_done(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum snap_endpoint eps[] = { SNAP_EP_CHAT, SNAP_EP_COMPLETIONS, SNAP_EP_EMBEDDINGS,
                                              SNAP_EP_MESSAGES, SNAP_EP_RESPONSES };
    struct js_val root, marked;
    struct js_mark marks[JS_MARKS_MAX];
    struct why why;
    enum err e = js_parse(str_n((const char *)data, size), &root, &why);
    ASSERT(js_parse_marked(str_n((const char *)data, size), marks, JS_MARKS_MAX, &marked, NULL) ==
           e);
    if (e != ERR_OK) return 0;
    ASSERT(str_is_utf8(str_n((const char *)data, size)));
    walk_both(root, marked);
    walk(root, 0);
    for (size_t i = 0; i < ARRAY_LEN(eps); i++) {
        struct request_scan scan;
        const char *param = "";
        if (dialect_of(eps[i])->scan_request(eps[i], root, &scan, &param, &why) != ERR_OK) continue;
        ASSERT(js_is(scan.model, JS_STRING));
        if (eps[i] == SNAP_EP_RESPONSES) as_chat(&scan);
    }
    return 0;
}
