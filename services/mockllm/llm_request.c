/* SPDX-License-Identifier: Apache-2.0 */
/* Request bodies of the OpenAI and Anthropic APIs; see the header. Pure. */
#include "llm_request.h"

#include "base/utf8.h"

enum { MAX_BODY = 256 << 20 };

/* --- texts of the prompt --- */

struct walk {
    llm_text_fn fn;
    void *ctx;
    uint64_t ids;
};

/* A content: a string, or parts of which those with a text have one. */
static void walk_content(struct walk *w, struct str role, const struct json *content)
{
    struct str s = json_str(content);
    if (s.p != NULL) w->fn(w->ctx, role, s);
    if (!json_is(content, JSON_ARRAY)) return;
    for (const struct json *part = json_first(content); part != NULL; part = json_next(part)) {
        s = json_str(part);
        if (s.p == NULL) s = json_str(json_get(part, "text"));
        if (s.p != NULL)
            w->fn(w->ctx, role, s);
        else if (json_is(json_get(part, "content"), JSON_ARRAY) ||
                 json_is(json_get(part, "content"), JSON_STRING))
            walk_content(w, role, json_get(part, "content")); /* a tool's result */
    }
}

static void walk_messages(struct walk *w, const struct json *messages)
{
    for (const struct json *m = json_first(messages); m != NULL; m = json_next(m)) {
        struct str role = json_str(json_get(m, "role"));
        walk_content(w, role.p != NULL ? role : STR(""), json_get(m, "content"));
    }
}

/* A string, an array of strings, an array of token ids, or an array of such arrays. */
static void walk_prompt(struct walk *w, const struct json *prompt)
{
    struct str s = json_str(prompt);
    if (s.p != NULL) w->fn(w->ctx, STR(""), s);
    if (!json_is(prompt, JSON_ARRAY)) return;
    for (const struct json *p = json_first(prompt); p != NULL; p = json_next(p)) {
        if (json_is(p, JSON_NUMBER))
            w->ids++;
        else if (json_is(p, JSON_ARRAY))
            w->ids += json_len(p);
        else if ((s = json_str(p)).p != NULL)
            w->fn(w->ctx, STR(""), s);
    }
}

void llm_request_texts(const struct llm_request *r, llm_text_fn fn, void *ctx, uint64_t *ret_ids)
{
    struct walk w = { fn, ctx, 0 };
    switch (r->api) {
    case API_MESSAGES:
    case API_COUNT_TOKENS:
        walk_content(&w, STR("system"), json_get(r->root, "system"));
        walk_messages(&w, json_get(r->root, "messages"));
        break;
    case API_CHAT: walk_messages(&w, json_get(r->root, "messages")); break;
    case API_COMPLETIONS: walk_prompt(&w, json_get(r->root, "prompt")); break;
    case API_EMBEDDINGS: walk_prompt(&w, json_get(r->root, "input")); break;
    case API_RESPONSES: {
        const struct json *input = json_get(r->root, "input");
        walk_content(&w, STR("system"), json_get(r->root, "instructions"));
        if (json_is(input, JSON_ARRAY))
            walk_messages(&w, input);
        else
            walk_content(&w, STR("user"), input);
        break;
    }
    case API_MAX: break;
    }
    *ret_ids = w.ids;
}

uint64_t count_words(struct str s)
{
    uint64_t count = 0;
    bool in_word = false;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = utf8_decode(s.p + i, s.n - i, &cp);
        if (n == 0) cp = 0xfffd, n = 1;
        bool letter = (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') ||
                      (cp >= 'A' && cp <= 'Z') || (cp >= 0xc0 && cp < 0x2000);
        bool space = cp <= ' ' || cp == 0xa0 || cp == 0x3000;
        if (letter ? !in_word : !space) count++;
        in_word = letter;
        i += n;
    }
    return count;
}

static void add_words(void *ctx, struct str role, struct str text)
{
    uint64_t *sum = ctx;
    *sum += count_words(text) + (role.n > 0 ? 4 : 0);
}

uint64_t llm_request_words(const struct llm_request *r)
{
    uint64_t sum = 0, ids;
    llm_request_texts(r, add_words, &sum, &ids);
    return sum + ids;
}

/* --- reading --- */

static void remember_last(void *ctx, struct str role, struct str text)
{
    struct llm_request *r = ctx;
    if (role.n == 0 || str_eqz(role, "user")) r->last_text = text;
}

static enum err optional_u64(const struct json *o, const char *key, uint64_t max, uint64_t *ret,
                             struct why *why)
{
    uint64_t v;
    enum err e = json_get_u64(o, key, &v);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (e != ERR_OK || v > max)
        return why_set(why, ERR_INVALID, "'%s' must be a whole number of at most %llu", key,
                       (unsigned long long)max);
    *ret = v;
    return ERR_OK;
}

static enum err optional_bool(const struct json *o, const char *key, bool *ret, struct why *why)
{
    bool v;
    enum err e = json_get_bool(o, key, &v);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (e != ERR_OK) return why_set(why, ERR_INVALID, "'%s' must be true or false", key);
    *ret = v;
    return ERR_OK;
}

static struct str tool_name(const struct json *tool)
{
    struct str name = json_str(json_get(json_get(tool, "function"), "name"));
    return name.p != NULL ? name : json_str(json_get(tool, "name"));
}

static void read_tools(struct llm_request *r)
{
    const struct json *tools = json_get(r->root, "tools");
    const struct json *choice = json_get(r->root, "tool_choice");
    r->tools = json_is(tools, JSON_ARRAY) && json_len(tools) > 0;
    if (!r->tools) return;
    r->tool_name = tool_name(json_first(tools));
    if (json_is(choice, JSON_OBJECT)) {
        struct str type = json_str(json_get(choice, "type")), name = tool_name(choice);
        r->tool_forced = name.p != NULL || str_eqz(type, "any");
        if (name.p != NULL) r->tool_name = name;
    } else {
        r->tool_forced = str_eqz(json_str(choice), "required");
    }
}

/* The member that holds the prompt, and whether it has a form that will do. */
static enum err check_prompt(const struct llm_request *r, struct why *why)
{
    const char *key = r->api == API_COMPLETIONS                             ? "prompt"
                      : r->api == API_EMBEDDINGS || r->api == API_RESPONSES ? "input"
                                                                            : "messages";
    const struct json *p = json_get(r->root, key);
    bool array = json_is(p, JSON_ARRAY) && json_len(p) > 0;
    if (array || (json_is(p, JSON_STRING) && !str_eqz(str_of(key), "messages"))) return ERR_OK;
    return why_set(why, ERR_INVALID, "'%s' is missing, empty, or not what it must be", key);
}

static uint64_t count_inputs(const struct json *p)
{
    if (!json_is(p, JSON_ARRAY)) return 1;
    return json_is(json_first(p), JSON_NUMBER) ? 1 : json_len(p);
}

static enum err read_root(struct llm_request *r, struct why *why)
{
    enum err e;
    if (!json_is(r->root, JSON_OBJECT))
        return why_set(why, ERR_INVALID, "the body is not a JSON object");
    r->model = json_str(json_get(r->root, "model"));
    if (r->model.n == 0) return why_set(why, ERR_INVALID, "'model' is missing or not a string");
    e = check_prompt(r, why);
    r->user = json_str(json_get(r->root, "user"));
    if (r->user.p == NULL) r->user = json_str(json_get(json_get(r->root, "metadata"), "user_id"));
    if (e == ERR_OK) e = optional_bool(r->root, "stream", &r->stream, why);
    if (e == ERR_OK)
        e = optional_bool(json_get(r->root, "stream_options"), "include_usage", &r->include_usage,
                          why);
    if (e == ERR_OK) e = optional_u64(r->root, "n", LLM_MAX_CHOICES, &r->n, why);
    static const char *const bounds[] = { "max_tokens", "max_completion_tokens",
                                          "max_output_tokens" };
    for (size_t i = 0; i < ARRAY_LEN(bounds) && e == ERR_OK; i++) {
        uint64_t max = UINT64_MAX;
        e = optional_u64(r->root, bounds[i], INT32_MAX, &max, why);
        if (max < r->max_tokens) r->max_tokens = max;
    }
    if (e == ERR_OK) e = optional_u64(r->root, "dimensions", 4096, &r->dimensions, why);
    if (e != ERR_OK) return e;
    if (r->n == 0) return why_set(why, ERR_INVALID, "'n' must be at least 1");
    if (r->api == API_MESSAGES && r->max_tokens == UINT64_MAX)
        return why_set(why, ERR_INVALID, "max_tokens: Field required");
    r->base64 = str_eqz(json_str(json_get(r->root, "encoding_format")), "base64");
    if (r->api == API_COMPLETIONS) r->inputs = count_inputs(json_get(r->root, "prompt"));
    if (r->api == API_EMBEDDINGS) r->inputs = count_inputs(json_get(r->root, "input"));
    if (r->inputs > LLM_MAX_INPUTS || r->inputs * r->n > LLM_MAX_INPUTS)
        return why_set(why, ERR_INVALID, "too many inputs");
    if (r->api == API_COMPLETIONS) r->n *= r->inputs;
    if (r->api == API_EMBEDDINGS || r->api == API_COUNT_TOKENS) r->stream = false;
    read_tools(r);
    uint64_t ids;
    llm_request_texts(r, remember_last, r, &ids);
    return ERR_OK;
}

enum err llm_request_parse(enum api api, struct str body, struct llm_request *ret, struct why *why)
{
    struct llm_request r = { .api = api,
                             .n = 1,
                             .max_tokens = UINT64_MAX,
                             .inputs = 1,
                             .dimensions = 8,
                             .last_text = STR("") };
    enum err e = json_parse(body, MAX_BODY, &r.root, why);
    if (e != ERR_OK) return e;
    e = read_root(&r, why);
    if (e != ERR_OK) {
        json_free(r.root);
        return e;
    }
    *ret = r;
    return ERR_OK;
}

void llm_request_done(struct llm_request *r)
{
    json_free(r->root);
    r->root = NULL;
}
