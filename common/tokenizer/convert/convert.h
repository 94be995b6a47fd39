/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a vocabulary file of what model makers publish. Used by `aigw-vocab` and by tests; input is
 * checked, and what cannot be represented exactly is refused with the reason. Any thread.
 */
#ifndef TOKENIZER_CONVERT_H
#define TOKENIZER_CONVERT_H

#include "base/buf.h"
#include "tokenizer/models/vocab.h"

struct convert_template {
    struct str name, source;
};

struct convert_opts {
    struct str name;     /* what the vocabulary is called */
    struct str digest;   /* 64 hex digits: SHA-256 of the input; empty: 64 zeros */
    struct str config;   /* tokenizer_config.json, may be empty */
    struct str template; /* chat_template.jinja, may be empty; goes before the one in config */
    struct str pattern;  /* .tiktoken only: cl100k, o200k, gpt2, qwen, tekken, llama3 */
    struct str
        specials; /* .tiktoken only: a JSON object {"<|endoftext|>": 100257, ...}, or empty */
    uint32_t reserved,
        reserved_end;  /* .tiktoken only: "<|reserved_N|>" is N, for N from .. below */
    struct str source; /* whatever vocab_source() shall return, may be empty */
    const struct convert_template *templates; /* more of them, with names */
    size_t templates_n;
};

/* Appends the file to ret (whose max must have room, 64 MiB will do). ERR_INVALID: malformed;
 * ERR_UNSUPPORTED: understood, but not something that can be counted exactly here. */
enum err convert_huggingface(struct str tokenizer_json, const struct convert_opts *o,
                             struct buf *ret, struct why *why) MUSTCHECK;
enum err convert_tiktoken(struct str ranks, const struct convert_opts *o, struct buf *ret,
                          struct why *why) MUSTCHECK;
enum err convert_tekken(struct str tekken_json, const struct convert_opts *o, struct buf *ret,
                        struct why *why) MUSTCHECK;

#endif
