/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What images in a chat cost: rules per model from a data file (images.rules, built in), and the
 * size of an image from its own header. Estimates, always. Pure; any thread.
 */
#ifndef TOKENIZER_IMAGES_H
#define TOKENIZER_IMAGES_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct image_size {
    uint32_t w, h; /* pixels, 1 to IMAGE_SIDE_MAX */
};
enum { IMAGE_SIDE_MAX = 1 << 20 };

enum image_kind { IMAGE_TILES, IMAGE_PATCHES, IMAGE_GRID, IMAGE_AREA };

/* One line of the rules: images.rules says what the parameters mean. */
struct image_rule {
    enum image_kind kind;
    uint64_t low, base, tile, fit, shorter, side, cap, factor, min, max, extra, pixels, longer;
    struct image_size assume;
};

/* The rules that are built in. */
struct str image_rules_builtin(void);
/* The line of `rules` for a model's name (a slice of it), p = NULL when none fits. */
struct str image_rules_find(struct str rules, struct str model);
/* ERR_INVALID with the reason. */
enum err image_rule_parse(struct str line, struct image_rule *ret, struct why *why) MUSTCHECK;
/* Are all lines of a file of rules as they must be? */
enum err image_rules_check(struct str rules, struct why *why) MUSTCHECK;

/* What an image of that size costs; low: the request asked for low detail. */
uint64_t image_tokens(const struct image_rule *r, struct image_size size, bool low);

/*
 * The size of a PNG, JPEG, GIF or WebP image from its first bytes. base64: text is their base64
 * (without white space), read where it is needed, never decoded as a whole. ERR_UNSUPPORTED: none
 * of them, or damaged.
 */
enum err image_size_read(struct str text, bool base64, struct image_size *ret) MUSTCHECK;
/* The same from a data: URL. ERR_NOT_FOUND: url is none. */
enum err image_size_of_url(struct str url, struct image_size *ret) MUSTCHECK;

#endif
