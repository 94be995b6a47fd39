/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "responses.h"

const struct responses_text_kind responses_texts[RT_MAX] = {
    [RT_OUTPUT] = { "output_text", "text", "content_index", "content", "content_part",
                    "output_text", DELTA_CONTENT },
    [RT_REFUSAL] = { "refusal", "refusal", "content_index", "content", "content_part", "refusal",
                     DELTA_REFUSAL },
    [RT_REASONING] = { "reasoning_text", "text", "content_index", "content", "content_part",
                       "reasoning_text", DELTA_REASONING },
    [RT_SUMMARY] = { "reasoning_summary_text", "text", "summary_index", "summary",
                     "reasoning_summary_part", "summary_text", DELTA_REASONING },
    [RT_FUNCTION] = { "function_call_arguments", "arguments", NULL, NULL, NULL, "function_call",
                      DELTA_TOOL },
    [RT_CUSTOM] = { "custom_tool_call_input", "input", NULL, NULL, NULL, "custom_tool_call",
                    DELTA_TOOL },
    [RT_MCP] = { "mcp_call_arguments", "arguments", NULL, NULL, NULL, "mcp_call", DELTA_TOOL },
    [RT_CODE] = { "code_interpreter_call_code", "code", NULL, NULL, NULL, "code_interpreter_call",
                  DELTA_TOOL },
};

enum err responses_place(enum responses_text t, uint64_t output_index, uint64_t part_index,
                         uint32_t *ret)
{
    if (output_index >= RT_MAX_ITEMS || part_index >= RT_MAX_PARTS) return ERR_INVALID;
    *ret = (uint32_t)(output_index << 15 | (uint64_t)t << 11 | part_index);
    return ERR_OK;
}

enum responses_text responses_at(uint32_t place, uint64_t *ret_output_index,
                                 uint64_t *ret_part_index)
{
    *ret_output_index = place >> 15;
    *ret_part_index = place & (RT_MAX_PARTS - 1);
    return place >> 11 & (RT_MAX * 2 - 1);
}

enum responses_text responses_text_of(struct str type, struct str *ret_what)
{
    const struct str prefix = STR("response.");
    *ret_what = STR("");
    if (!str_starts(type, prefix)) return RT_MAX;
    type = str_n(type.p + prefix.n, type.n - prefix.n);
    struct str stem = str_cut(&type, '.');
    for (enum responses_text t = 0; t < RT_MAX; t++)
        if (str_eqz(stem, responses_texts[t].stem)) {
            *ret_what = type;
            return t;
        }
    return RT_MAX;
}

struct str responses_word(struct js_val v)
{
    return js_is(v, JS_STRING) ? str_n(v.raw.p + 1, v.raw.n - 2) : STR_NULL;
}

uint64_t responses_index(struct js_val root, const char *name)
{
    uint64_t n;
    return js_u64(js_get(root, name), &n) == ERR_OK ? n : 0;
}
