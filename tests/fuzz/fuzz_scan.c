/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text, cut by every scanner: as its regular expression cuts it, the same from part of the text
 * when that says it is sure, and the same from windows of ASCII and of all scripts. The first byte
 * chooses where it is cut off.
 */
#include <stdlib.h>
#include <strings.h>

#include "../unit/support_scan.h"
#include "base/buf.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/scan_window.h"
#include "tokenizer/scan/scripts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) abort();
}

static void windows(enum scan_shape shape, const char *p, size_t n)
{
    char room[SCAN_WINDOW];
    memset(room, 0xff, sizeof room);
    memcpy(room, p, n < sizeof room ? n : sizeof room);
    uint64_t ends = scan_window_for(shape, SCAN_PORTABLE)(room);
    for (int isa = SCAN_PORTABLE + 1; isa < SCAN_ISA_END; isa++) {
        scan_window_fn *f = scan_window_for(shape, (enum scan_isa)isa);
        if (f != NULL) check(f(room) == ends);
    }
    for (size_t at = 0; ends >> at > 1;) {
        at += scan_piece(shape, p + at, n - at, false);
        check(at < SCAN_WINDOW && (ends >> at & 1) != 0);
        ends &= ~((uint64_t)1 << at);
    }
    check(ends == 0);
}

/* Characters of all scripts, too. */
static void scripts(enum scan_shape shape, const char *p, size_t n)
{
    uint16_t cuts[SCAN_WINDOW];
    size_t cuts_n = scripts_cuts(shape, p, n, cuts);
    for (size_t i = 0, at = 0; i < cuts_n; i++) {
        at += scan_piece(shape, p + at, n - at, false);
        check(at == cuts[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf text, points;
    if (size < 2 || size > 2000) return 0;
    buf_init(&text, 1 << 16);
    buf_init(&points, 1 << 16);
    const char *raw = (const char *)data + 1;
    for (size_t i = 0, len; i < size - 1; i += len) {
        len = clean_cluster(raw + i, size - 1 - i, false, 0);
        check(clean_append(raw + i, len, 0, &points, &text) == ERR_OK);
    }
    for (int s = 1; s <= SCAN_GPT2; s++) {
        enum scan_shape shape = (enum scan_shape)s;
        for (size_t at = 0, n; at < text.len; at += n) {
            const char *p = text.data + at;
            size_t left = text.len - at, part = 1 + data[0] % left;
            n = scan_piece(shape, p, left, false);
            check(n > 0 && n <= left);
            if (shape != SCAN_DEEPSEEK) check(n == re_match(shape, p, left));
            while (part < left && ((unsigned char)p[part] & 0xc0) == 0x80) part++;
            size_t sure = scan_piece(shape, p, part, true);
            check(sure == 0 || sure == n);
            windows(shape, p, left);
            scripts(shape, p, left);
        }
    }
    buf_done(&text);
    buf_done(&points);
    return 0;
}
