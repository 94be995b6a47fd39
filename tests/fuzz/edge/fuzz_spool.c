/* SPDX-License-Identifier: Apache-2.0 */
/* Spool segments as a crash may leave them: reading ends, stays inside, gives only whole frames
 * with good checksums; and a frame written into the garbage is found again. */
#include <stdlib.h>

#include "services/edge/records/spool_segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX = 64 * 1024 };

static size_t read_all(char *map, size_t size, size_t want_at)
{
    size_t at = sizeof(struct segment_header), found = 0;
    bool damaged;
    while (segment_next(map, size, &at, &damaged) == ERR_OK) {
        const struct segment_frame *f = segment_at(map, at);
        if (at % 8 != 0 || f->length > size - at || f->length < sizeof *f) abort();
        struct str name = segment_name(f), text = segment_text(f);
        if (name.p + name.n > map + size || text.p + text.n > map + size) abort();
        if (at == want_at) found++;
        at += f->length;
    }
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct segment_header h;
    if (n < sizeof h || n > MAX) return 0;
    char *map = aligned_alloc(64, (n + 63) / 64 * 64);
    if (map == NULL) return 0;
    memcpy(map, data, n);
    (void)!segment_check(map, n, &h);
    (void)read_all(map, n, SIZE_MAX);
    struct segment_entry e = { .type = SEGMENT_SETTLE,
                               .id = STR("01944d2e-8a00-7cc3-98c4-dc0c0c07398f"),
                               .name = STR("team-a"),
                               .text = str_n((const char *)data, n % 100) };
    /* At an offset that the input chooses, and with a good header before it. */
    size_t at = sizeof h + (size_t)data[0] * 8, need = segment_frame_size(&e);
    if (at + need <= n) {
        (void)segment_append(map, at, &e);
        if (!segment_is_frame(map, n, at)) abort();
        /* A frame before it that is good may reach over it: then it is not seen. */
        if (read_all(map, n, at) > 1) abort();
    }
    free(map);
    return 0;
}
