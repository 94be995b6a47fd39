/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of images (as bytes, as base64, in URLs) and files of image rules: a size is within its
 * bounds, and no rule that is taken breaks on any size. */
#include <stdlib.h>

#include "tokenizer/chat/images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(struct image_size s)
{
    if (s.w == 0 || s.h == 0 || s.w > IMAGE_SIDE_MAX || s.h > IMAGE_SIDE_MAX) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint32_t sides[] = { 1, 33, 1000, IMAGE_SIDE_MAX };
    struct str text = str_n((const char *)data, n);
    struct image_size size;
    struct image_rule rule;
    struct why why;
    if (image_size_read(text, false, &size) == ERR_OK) check(size);
    if (image_size_read(text, true, &size) == ERR_OK) check(size);
    if (image_size_of_url(text, &size) == ERR_OK) check(size);
    (void)(image_rules_check(text, &why) == ERR_OK);
    struct str line = image_rules_find(text, STR("gpt-x"));
    if (line.p == NULL || image_rule_parse(line, &rule, &why) != ERR_OK) return 0;
    for (unsigned i = 0; i < 16; i++)
        (void)image_tokens(&rule, (struct image_size){ sides[i / 4], sides[i % 4] }, i % 3 == 0);
    return 0;
}
