/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of images.rules: finding a line, reading it, applying it. Pure; any thread. */
#include "tokenizer/chat/images.h"

#include <math.h>
#include <stddef.h>

#include "tokenizer/models/models.h"

/* The assembler puts the file in: the path is from the root of the tree, where make runs. */
__asm__(".section .rodata\n"
        ".global aigw_image_rules_begin\n"
        ".global aigw_image_rules_end\n"
        "aigw_image_rules_begin:\n"
        ".incbin \"common/tokenizer/chat/images.rules\"\n"
        "aigw_image_rules_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const char aigw_image_rules_begin[], aigw_image_rules_end[];

enum { PARAMETER_MAX = 1 << 30, TOKENS_MAX = 1 << 30 };

struct str image_rules_builtin(void)
{
    return str_n(aigw_image_rules_begin, (size_t)(aigw_image_rules_end - aigw_image_rules_begin));
}

/* The next line that says something, trimmed; p = NULL behind the last. */
static struct str next_line(struct str *rest)
{
    while (rest->n > 0) {
        struct str line = str_trim(str_cut(rest, '\n'));
        if (line.n > 0 && line.p[0] != '#') return line;
    }
    return STR_NULL;
}

struct str image_rules_find(struct str rules, struct str model)
{
    struct str line;
    while ((line = next_line(&rules)).p != NULL) {
        struct str rest = line, patterns = str_cut(&rest, ';');
        while (patterns.n > 0) {
            struct str pattern = str_cut(&patterns, ' ');
            if (pattern.n > 0 && models_match(pattern, model)) return line;
        }
    }
    return STR_NULL;
}

static enum err read_size(struct str value, struct image_size *ret)
{
    uint64_t w = 0, h = 0;
    struct str first = str_cut(&value, 'x');
    if (str_to_u64(first, &w) != ERR_OK || str_to_u64(value, &h) != ERR_OK) return ERR_INVALID;
    if (w == 0 || h == 0 || w > IMAGE_SIDE_MAX || h > IMAGE_SIDE_MAX) return ERR_INVALID;
    *ret = (struct image_size){ (uint32_t)w, (uint32_t)h };
    return ERR_OK;
}

static enum err read_parameter(struct str text, struct image_rule *r)
{
    static const struct {
        const char *name;
        size_t at;
    } table[] = {
        { "low", offsetof(struct image_rule, low) },
        { "base", offsetof(struct image_rule, base) },
        { "tile", offsetof(struct image_rule, tile) },
        { "fit", offsetof(struct image_rule, fit) },
        { "short", offsetof(struct image_rule, shorter) },
        { "side", offsetof(struct image_rule, side) },
        { "cap", offsetof(struct image_rule, cap) },
        { "factor", offsetof(struct image_rule, factor) },
        { "min", offsetof(struct image_rule, min) },
        { "max", offsetof(struct image_rule, max) },
        { "extra", offsetof(struct image_rule, extra) },
        { "pixels", offsetof(struct image_rule, pixels) },
        { "long", offsetof(struct image_rule, longer) },
    };
    struct str name = str_cut(&text, '=');
    uint64_t value;
    if (str_eqz(name, "assume")) return read_size(text, &r->assume);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (!str_eqz(name, table[i].name)) continue;
        if (str_to_u64(text, &value) != ERR_OK || value > PARAMETER_MAX) return ERR_INVALID;
        *(uint64_t *)(void *)((char *)r + table[i].at) = value;
        return ERR_OK;
    }
    return ERR_INVALID;
}

static bool complete(const struct image_rule *r)
{
    if (r->assume.w == 0) return false;
    switch (r->kind) {
    case IMAGE_TILES: return r->side > 0;
    case IMAGE_PATCHES: return r->side > 0 && r->cap > 0 && r->factor > 0;
    case IMAGE_GRID: return r->side > 0 && r->min > 0 && r->max >= r->min;
    case IMAGE_AREA: return r->pixels > 0 && r->longer > 0 && r->cap > 0;
    }
    return false;
}

enum err image_rule_parse(struct str line, struct image_rule *ret, struct why *why)
{
    static const char *const kinds[] = { "tiles", "patches", "grid", "area" };
    struct image_rule r = { .low = 0 };
    struct str rest = line;
    (void)str_cut(&rest, ';'); /* the patterns */
    struct str kind = str_trim(str_cut(&rest, ';'));
    size_t k = 0;
    while (k < ARRAY_LEN(kinds) && !str_eqz(kind, kinds[k])) k++;
    if (k == ARRAY_LEN(kinds))
        return why_set(why, ERR_INVALID, "no kind of image rule: '%.*s'", STR_ARG(kind));
    r.kind = (enum image_kind)k;
    rest = str_trim(rest);
    while (rest.n > 0) {
        struct str parameter = str_cut(&rest, ' ');
        if (parameter.n > 0 && read_parameter(parameter, &r) != ERR_OK)
            return why_set(why, ERR_INVALID, "wrong in an image rule: '%.*s'", STR_ARG(parameter));
    }
    if (!complete(&r))
        return why_set(why, ERR_INVALID, "an image rule lacks a parameter: '%.*s'", STR_ARG(line));
    *ret = r;
    return ERR_OK;
}

enum err image_rules_check(struct str rules, struct why *why)
{
    struct str line;
    struct image_rule r;
    while ((line = next_line(&rules)).p != NULL) {
        enum err e = image_rule_parse(line, &r, why);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

/* ---- applying them ---- */

static double squares(double w, double h, double side)
{
    return MAX(ceil(w / side), 1) * MAX(ceil(h / side), 1);
}

static double tiles(const struct image_rule *r, double w, double h)
{
    double scale = 1;
    if (r->fit > 0) scale = MIN(scale, (double)r->fit / MAX(w, h));
    if (r->shorter > 0) scale = MIN(scale, (double)r->shorter / MIN(w, h));
    return (double)r->base +
           (double)r->tile * squares(floor(w * scale), floor(h * scale), (double)r->side);
}

static double patches(const struct image_rule *r, double w, double h)
{
    double side = (double)r->side, n = squares(w, h, side);
    if (n > (double)r->cap) {
        /* Shrunk to the cap, and a little more, so that one side holds a whole number of them. */
        double scale = sqrt((double)r->cap * side * side / (w * h));
        double across = w * scale / side, down = h * scale / side;
        scale *= MIN(MAX(floor(across), 1) / across, MAX(floor(down), 1) / down);
        n = MIN(squares(floor(w * scale + 1e-6), floor(h * scale + 1e-6), side), (double)r->cap);
    }
    return ceil(n * (double)r->factor / 1000);
}

static double grid(const struct image_rule *r, double w, double h)
{
    double side = (double)r->side;
    double gw = MAX(nearbyint(w / side), 1) * side, gh = MAX(nearbyint(h / side), 1) * side;
    if (gw * gh > (double)r->max) {
        double beta = sqrt(w * h / (double)r->max);
        gw = MAX(floor(w / beta / side), 1) * side;
        gh = MAX(floor(h / beta / side), 1) * side;
    } else if (gw * gh < (double)r->min) {
        double beta = sqrt((double)r->min / (w * h));
        gw = ceil(w * beta / side) * side;
        gh = ceil(h * beta / side) * side;
    }
    return gw * gh / (side * side) + (double)r->extra;
}

static double area(const struct image_rule *r, double w, double h)
{
    double scale = MIN(1, (double)r->longer / MAX(w, h));
    return MIN(ceil(w * scale * (h * scale) / (double)r->pixels), (double)r->cap);
}

uint64_t image_tokens(const struct image_rule *r, struct image_size size, bool low)
{
    double w = size.w, h = size.h, n = 0;
    if (low && r->kind == IMAGE_TILES) return r->low;
    switch (r->kind) {
    case IMAGE_TILES: n = tiles(r, w, h); break;
    case IMAGE_PATCHES: n = patches(r, w, h); break;
    case IMAGE_GRID: n = grid(r, w, h); break;
    case IMAGE_AREA: n = area(r, w, h); break;
    }
    return (uint64_t)MIN(n, (double)TOKENS_MAX);
}
