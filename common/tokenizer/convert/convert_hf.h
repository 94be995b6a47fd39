/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the converter of tokenizer.json. Only for convert_hf*.c. Any thread. */
#ifndef TOKENIZER_CONVERT_HF_H
#define TOKENIZER_CONVERT_HF_H

#include "tokenizer/convert/convert_parts.h"

struct hf {
    struct build b;
    struct map ids; /* the vocabulary's own strings to ids */
    struct buf word, left, right, bytes;
    struct buf pattern; /* of SCAN_REGEX */
    struct jpull *j;    /* what is being walked */
    struct why *why;    /* why the file is refused ... */
    enum err err;       /* ... and how */
    /* normalizer */
    bool prepend, replace;
    /* pre-tokenizer */
    bool byte_level, metaspace;
    bool prefix_space; /* ByteLevel: add_prefix_space */
    /* model */
    bool byte_fallback, ignore_merges;
    bool normalized_added;
};

/* Ends the walk and keeps the reason; the first one stays. `detail` may be empty. */
void hf_refuse(struct hf *h, enum err e, const char *what, struct str detail);

/* Walk one member of the file each: raw is its JSON text, where it stands in the file. */
void hf_read_model_type(struct hf *h, struct str raw); /* of another, the rest means nothing */
void hf_read_normalizer(struct hf *h, struct str raw);
void hf_read_pre_tokenizer(struct hf *h, struct str raw); /* behind the normalizer */
void hf_read_model(struct hf *h, struct str raw);         /* behind both */

/* Runs `read` over a JSON text of its own. */
void hf_walk(struct hf *h, const char *name, struct str raw, void (*read)(struct hf *h));

#endif
