/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command-R and kin: each digit is a piece, and what lies between digits is split by the pattern of
 * GPT-2, which sees nothing beyond. Pure.
 */
#include "tokenizer/scan/scan_run.h"

size_t scan_gpt2_digits(const char *p, const char *end, bool more)
{
    size_t len, skip = 0;
    unsigned c = unicode_class_at(p, &len);
    if ((c & UC_N) != 0) return len;
    if (*p == '\'') {
        int k = scan_contraction(p, end, more, false);
        if (k < 0) return 0;
        if (k > 0) return (size_t)k;
    }
    if (*p == ' ') {
        if (end - p == 1 && more) return 0;
        if (end - p > 1) {
            size_t len1;
            unsigned c1 = unicode_class_at(p + 1, &len1);
            if ((c1 & (UC_S | UC_N)) == 0) skip = 1, c = c1;
        }
    }
    const char *q;
    if ((c & UC_S) != 0) {
        const char *last = p;
        size_t k;
        for (q = p; q < end && (unicode_class_at(q, &k) & UC_S) != 0; q += k) last = q;
        if (q == end && more) return 0;
        bool all = q == end || last == p || (unicode_class_at(q, &k) & UC_N) != 0;
        return (size_t)((all ? q : last) - p);
    }
    q = (c & UC_L) != 0 ? scan_run_in(p + skip, end, UC_L)
                        : scan_run_out(p + skip, end, UC_S | UC_L | UC_N);
    return q == end && more ? 0 : (size_t)(q - p);
}
