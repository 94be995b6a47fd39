/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenizers whose pattern nobody wrote a scanner for, run by PCRE2. Its tables are of another
 * Unicode than the tokenizers' (14 in Debian 12), and a few constructs differ, so what is counted
 * this way is never called exact. Internal to the tokenizer. Pure; any thread.
 */
#ifndef TOKENIZER_SCAN_REGEX_H
#define TOKENIZER_SCAN_REGEX_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

struct scan_regex;

/* ERR_INVALID: no pattern, or one that looks behind itself (pieces are found one by one);
 * ERR_NOMEM. */
enum err scan_regex_new(struct str pattern, struct scan_regex **ret, struct why *why) MUSTCHECK;
void scan_regex_free(struct scan_regex *r); /* NULL is fine */

/* As scan_piece(): what matches is a piece, and so is what lies between. A match that takes more
 * than SCAN_REGEX_STEPS steps is given up: then one character is the piece. */
enum { SCAN_REGEX_STEPS = 20000 };
size_t scan_regex_piece(const struct scan_regex *r, const char *p, size_t n, bool more);

#endif
