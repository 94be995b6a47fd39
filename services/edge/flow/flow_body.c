/* SPDX-License-Identifier: Apache-2.0 */
/* FLOW_BODY: the request's body, as it comes in and as it is read. Nothing is copied: the scan
 * holds slices of the client's input buffer. */
#include <stdlib.h>

#include "flow_impl.h"
#include "match/match.h"

enum { CHUNKED_SLACK = 64 * 1024, MODEL_NAME_MAX = 1024, USER_MAX = 4096 };

/* --- coming in --- */

static struct buf *input(const struct flow *f)
{
    return &f->client->in;
}

static size_t head_len(const struct flow *f)
{
    return f->client->request->head.len;
}

size_t flow_body_room(const struct flow *f)
{
    const struct h1_head *h = &f->client->request->head;
    if (h->framing == H1_BODY_CHUNKED) return CHUNKED_SLACK;
    size_t total = h->len + (size_t)h->content_length;
    return total > input(f)->len ? total - input(f)->len : 0;
}

size_t flow_body_bytes(const struct flow *f)
{
    return f->body_len;
}

void flow_refuse_body(struct flow *f, enum refusal r, const char *why)
{
    flow_refuse(f, r, str_of(why), NULL);
}

/*
 * Decodes what has come of a chunked body, in place:
 *
 *      | head | decoded (body_len) | used up … | not decoded yet |
 *                                              ^ body_raw behind the head
 */
static enum flow_body_status take_chunked(struct flow *f)
{
    struct buf *b = input(f);
    size_t base = head_len(f);
    struct str in = str_n(b->data + base + f->body_raw, b->len - base - f->body_raw), piece;
    enum chunked_status st;
    while ((st = chunked_decode(&f->asked->chunked, &in, &piece)) == CHUNKED_DATA) {
        if (!flow_body_fits(f, f->body_len + piece.n)) return FLOW_BODY_REFUSED;
        memmove(b->data + base + f->body_len, piece.p, piece.n);
        f->body_len += piece.n;
    }
    if (st == CHUNKED_BAD) {
        flow_refuse(f, REFUSE_BAD_REQUEST, str_of(f->asked->chunked.reason), NULL);
        return FLOW_BODY_REFUSED;
    }
    /* What is used up goes: the buffer holds the body once. */
    memmove(b->data + base + f->body_len, in.p, in.n);
    b->len = base + f->body_len + in.n;
    f->body_raw = f->body_len;
    return st == CHUNKED_DONE ? FLOW_BODY_READY : FLOW_BODY_MORE;
}

enum flow_body_status flow_take_body(struct flow *f)
{
    const struct h1_head *h = &f->client->request->head;
    if (h->framing == H1_BODY_CHUNKED) return take_chunked(f);
    if (flow_body_room(f) > 0) return FLOW_BODY_MORE;
    f->body_len = (size_t)h->content_length;
    return FLOW_BODY_READY;
}

static struct str body_of(const struct flow *f)
{
    return str_n(input(f)->data + head_len(f), f->body_len);
}

/* --- reading it --- */

static bool is_json(struct str type)
{
    struct str main = str_cut(&type, ';');
    main = str_trim(main);
    return main.n == 0 || str_ieqz(main, "application/json") ||
           (main.n > 5 && str_ends(main, STR("+json")));
}

/* Decodes the model's name and looks it up; matching, which borrows it, looks at this one from now
 * on. */
static enum err set_model(struct flow *f, struct js_val string)
{
    struct str raw = str_n(string.raw.p + 1, string.raw.n - 2), name = raw;
    struct buf decoded;
    enum err e = ERR_OK;
    buf_init(&decoded, MODEL_NAME_MAX);
    if (memchr(raw.p, '\\', raw.n) != NULL) {
        e = js_decode(string, &decoded);
        name = buf_str(&decoded);
    }
    if (e == ERR_OK && name.n > MODEL_NAME_MAX) e = ERR_LIMIT;
    if (e == ERR_OK) {
        free((char *)(uintptr_t)f->model.p);
        f->model = f->asked->match.model = str_n(str_dupz(name), name.n);
        f->model_cfg = match_model(f->rules->matching, f->model);
    }
    buf_done(&decoded);
    return e;
}

/* Who the client says its user is, as it will be recorded. What does not fit is cut, as in the
 * record. */
static void note_user(struct flow *f, struct js_val user)
{
    struct buf text;
    if (!js_is(user, JS_STRING)) return;
    buf_init(&text, USER_MAX);
    if (js_decode(user, &text) == ERR_OK && text.len > 0) {
        const struct edge *e = flow_edge(f);
        char shown[IDENTITY_LEN + 1];
        identity_write(e->identities, e->key_pepper, buf_str(&text), shown);
        free(f->user);
        f->user = str_dupz(str_of(shown));
        f->asked->subject.has_user = true;
        f->asked->subject.user_hash = admit_hash(buf_str(&text), e->key_pepper);
    }
    buf_done(&text);
}

/* The one pass over the body. ERR_INVALID; ERR_DENIED: it can be read in two ways; ERR_LIMIT;
 * ERR_NOMEM. */
static enum err parse_body(struct flow *f, struct why *why)
{
    struct asked *asked = f->asked;
    const struct js_wants *wants = matching_body_wants(f->rules->matching);
    size_t n = js_wants_count(wants);
    if (asked->parsed) return ERR_OK;
    if (n > 0) {
        asked->found = arena_alloc(&asked->arena, n * sizeof *asked->found);
        asked->members = arena_alloc(&asked->arena, n * sizeof *asked->members);
        if (asked->found == NULL || asked->members == NULL) return ERR_NOMEM;
    }
    enum err e = n > 0 ? js_parse_wanting(body_of(f), wants, &asked->root, asked->found, why)
                       : js_parse_marked(body_of(f), asked->marks, BODY_MARKS, &asked->root, why);
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        if (match_values_of(asked->found[i], &asked->arena, &asked->members[i]) != ERR_OK)
            e = why_set(why, ERR_LIMIT, "a field that decides over the request is too long");
    asked->parsed = e == ERR_OK;
    return e;
}

/* Reads the body; false when it was answered. */
static bool scan_body(struct flow *f, enum snap_endpoint ep)
{
    struct request_scan *scan = &f->asked->scan;
    struct why why = { "" };
    const char *param = "body";
    if (!is_json(h1_header_known(&f->client->request->head, H1_CONTENT_TYPE))) {
        flow_refuse(f, REFUSE_MEDIA_TYPE, STR("Send the body as content-type: application/json."),
                    NULL);
        return false;
    }
    enum err e = parse_body(f, &why);
    if (e == ERR_OK) e = dialect_of(ep)->scan_request(ep, f->asked->root, scan, &param, &why);
    if (e == ERR_OK && (e = set_model(f, scan->model)) != ERR_OK) {
        (void)why_set(&why, e, "model: longer than %d bytes", MODEL_NAME_MAX);
        param = "model";
    }
    if (e != ERR_OK) {
        flow_refuse(f, REFUSE_BAD_BODY, str_of(why.text),
                    str_eqz(STR("body"), param) ? NULL : param);
        return false;
    }
    f->scanned = true;
    f->read_as = ep;
    f->stream = scan->stream;
    f->wants_usage = scan->wants_usage;
    note_user(f, scan->user);
    return true;
}

/* Endpoints whose bodies the gateway reads. */
static bool is_read(enum snap_endpoint ep)
{
    return ep == SNAP_EP_CHAT || ep == SNAP_EP_COMPLETIONS || ep == SNAP_EP_EMBEDDINGS ||
           ep == SNAP_EP_RESPONSES || ep == SNAP_EP_MESSAGES || ep == SNAP_EP_COUNT_TOKENS;
}

bool flow_read_body(struct flow *f, enum snap_endpoint ep)
{
    const struct h1_request *q = f->client->request;
    if (f->scanned && f->read_as == ep) return true;
    f->scanned = false;
    if (!is_read(ep)) return true;
    if (q->method == H1_POST) return scan_body(f, ep);
    if (q->head.framing == H1_BODY_NONE) return true;
    flow_refuse(f, REFUSE_METHOD, STR("Requests with a body are POST here."), NULL);
    return false;
}

bool flow_peek_body(struct flow *f)
{
    struct js_val v, model = JS_ABSENT;
    struct js_iter it;
    struct str key;
    struct why why = { "" };
    bool is_typed = is_json(h1_header_known(&f->client->request->head, H1_CONTENT_TYPE));
    if (f->body_len == 0 || !is_typed) return true;
    if (parse_body(f, &why) != ERR_OK) {
        flow_refuse(f, REFUSE_BAD_BODY, str_of(why.text), NULL);
        return false;
    }
    js_iter_init(&it, f->asked->root);
    while (js_is(f->asked->root, JS_OBJECT) && js_next_member(&it, &key, &v)) {
        if (!js_key_is(key, "model")) continue;
        if (model.raw.p != NULL) {
            flow_refuse(f, REFUSE_BAD_BODY, STR("model: given twice"), "model");
            return false;
        }
        model = v;
    }
    if (!js_is(model, JS_STRING) || set_model(f, model) == ERR_OK) return true;
    flow_refuse(f, REFUSE_BAD_BODY, STR("model: too long"), "model");
    return false;
}
