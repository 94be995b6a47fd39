/* SPDX-License-Identifier: Apache-2.0 */
/* Any pattern on any text, up to the first line feed and behind it: no crash, no end that lies
 * outside, and no match that takes for ever. With and without machine code the verdict is the same,
 * unless one of them gave up. */
#include <stdlib.h>

#include "rt/regex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str text = str_n((const char *)data, n), pattern = str_cut(&text, '\n');
    enum regex_result verdicts[2] = { REGEX_NO, REGEX_NO };
    if (text.p == NULL) text = STR("");
    for (unsigned jit = 0; jit < 2; jit++) {
        struct regex *r;
        struct regex_span groups[REGEX_GROUPS_MAX];
        struct why why = { "" };
        unsigned flags = REGEX_ANY_BYTES | (jit ? REGEX_JIT : 0);
        enum err e = str_is_utf8(pattern) ? regex_new(pattern, flags, 10000, &r, &why)
                                          : ERR_INVALID;
        if (e != ERR_OK) return 0;
        verdicts[jit] = regex_find(r, text, 0, groups, REGEX_GROUPS_MAX);
        for (size_t i = 0; verdicts[jit] == REGEX_YES && i < REGEX_GROUPS_MAX; i++)
            if (groups[i].from <= groups[i].to && groups[i].to > text.n) abort();
        regex_free(r);
    }
    if (verdicts[0] != REGEX_GAVE_UP && verdicts[1] != REGEX_GAVE_UP && verdicts[0] != verdicts[1])
        abort();
    return 0;
}
