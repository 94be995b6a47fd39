/* SPDX-License-Identifier: Apache-2.0 */
/* The images of a request: where they stand in its messages, and what they cost by the model's
 * rule. Pure; any thread. */
#include "tokenizer/chat/chat_int.h"
#include "tokenizer/chat/images.h"

static struct str text_member(struct jv v, const char *key)
{
    const struct jv *m = jv_member(v, str_of(key));
    return m != NULL && m->type == JV_STR ? jv_text(*m) : STR("");
}

/* {"type":"image_url","image_url":{"url","detail"}}, {"type":"input_image","image_url","detail"}
 * and
 * {"type":"image","source":{"type":"base64","data"}}: its size, if the request carries it. */
static enum err size_of_part(struct jv part, struct image_size *ret, bool *ret_low)
{
    const struct jv *url = jv_member(part, STR("image_url")),
                    *from = jv_member(part, STR("source"));
    struct str detail = text_member(part, "detail"), where = STR("");
    if (url != NULL && url->type == JV_STR) where = jv_text(*url);
    if (url != NULL && url->type == JV_DICT) {
        where = text_member(*url, "url");
        if (detail.n == 0) detail = text_member(*url, "detail");
    }
    *ret_low = str_eqz(detail, "low");
    if (from != NULL && str_eqz(text_member(*from, "type"), "base64"))
        return image_size_read(text_member(*from, "data"), true, ret);
    return image_size_of_url(where, ret);
}

enum err chat_images_count(struct str rule_line, struct jv messages, struct chat_images *ret,
                           struct why *why)
{
    struct image_rule rule;
    struct chat_images found = { .n = 0 };
    enum err e = image_rule_parse(rule_line, &rule, why);
    if (e != ERR_OK) return e;
    for (uint32_t i = 0; i < messages.list->n; i++) {
        const struct jv *content = jv_member(messages.list->items[i], STR("content"));
        if (content == NULL || content->type != JV_LIST) continue;
        for (uint32_t k = 0; k < content->list->n; k++) {
            struct image_size size = rule.assume;
            bool low = false;
            if (!chat_is_image(content->list->items[k])) continue;
            bool known = size_of_part(content->list->items[k], &size, &low) == ERR_OK;
            if (!known && !(low && rule.kind == IMAGE_TILES)) found.assumed++;
            found.n++;
            found.tokens += image_tokens(&rule, size, low);
        }
    }
    found.assume = rule.assume;
    *ret = found;
    return ERR_OK;
}
