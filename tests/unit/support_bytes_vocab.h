/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vocabulary in which every byte is a token, and <|a|>, <|b|> are special ones: counts can be
 * told by looking. Header of static functions for unit tests and fuzz targets.
 */
#ifndef TESTS_SUPPORT_BYTES_VOCAB_H
#define TESTS_SUPPORT_BYTES_VOCAB_H

#include <stdio.h>

#include "tokenizer/convert/convert.h"

static inline void bytes_vocab_file(const char *name, const char *template, const char *config,
                                    struct buf *ret)
{
    static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char ranks[256 * 12], *w = ranks;
    struct why why = { "" };
    for (unsigned i = 0; i < 256; i++)
        w += snprintf(w, 12, "%c%c== %u\n", b64[i >> 2], b64[(i & 3) << 4], i);
    struct convert_opts o = {
        .name = str_of(name),
        .config = str_of(config),
        .template = str_of(template),
        .pattern = STR("cl100k"),
        .specials = STR("{\"<|a|>\":256,\"<|b|>\":257}"),
    };
    enum err e = convert_tiktoken(str_n(ranks, (size_t)(w - ranks)), &o, ret, &why);
    if (e != ERR_OK) fprintf(stderr, "%s\n", why.text);
    ASSERT(e == ERR_OK);
}

static inline struct vocab *bytes_vocab(const char *name, const char *template, const char *config)
{
    struct buf file;
    struct vocab *v = NULL;
    struct why why = { "" };
    buf_init(&file, 64u << 20);
    bytes_vocab_file(name, template, config, &file);
    enum err e = vocab_open_mem(file.data, file.len, &v, &why);
    if (e != ERR_OK) fprintf(stderr, "%s\n", why.text);
    ASSERT(e == ERR_OK);
    buf_done(&file);
    return v;
}

#endif
