/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in a mapped segment: see spool_segment.h. */
#include "spool_segment.h"

#include "base/hash.h"

static const char segment_magic[8] = "AIGWSPL";
static const uint32_t frame_magic = 0x46524d31; /* "1MRF" */

enum { ALIGN = 8 };

void segment_init(char *map, uint32_t number)
{
    struct segment_header h = { .version = SEGMENT_VERSION, .number = number };
    memcpy(h.magic, segment_magic, sizeof h.magic);
    memcpy(map, &h, sizeof h);
}

void segment_use(char *map, uint64_t order)
{
    struct segment_header *h = (struct segment_header *)(void *)map;
    h->uses++;
    h->order = order;
}

enum err segment_check(const char *map, size_t size, struct segment_header *ret)
{
    struct segment_header h;
    if (size < sizeof h) return ERR_INVALID;
    memcpy(&h, map, sizeof h);
    if (memcmp(h.magic, segment_magic, sizeof h.magic) != 0) return ERR_INVALID;
    if (h.version < 1 || h.version > SEGMENT_VERSION) return ERR_UNSUPPORTED;
    *ret = h;
    return ERR_OK;
}

size_t segment_frame_size(const struct segment_entry *e)
{
    size_t n = sizeof(struct segment_frame) + e->name.n + e->text.n;
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static uint32_t frame_crc(const char *map, const struct segment_frame *f)
{
    size_t from = offsetof(struct segment_frame, magic);
    const struct segment_header *h = (const struct segment_header *)(const void *)map;
    uint32_t seed = h->version == 1 ? 0 : (uint32_t)h->order;
    return hash_crc32c(seed, (const char *)f + from, sizeof *f - from + f->name_n + f->text_n);
}

struct segment_frame *segment_at(char *map, size_t at)
{
    return (struct segment_frame *)(void *)(map + at);
}

static const struct segment_frame *frame_at(const char *map, size_t at)
{
    return (const struct segment_frame *)(const void *)(map + at);
}

size_t segment_append(char *map, size_t tail, const struct segment_entry *e)
{
    struct segment_frame *f = segment_at(map, tail);
    size_t length = segment_frame_size(e);
    char *body = (char *)(f + 1);
    ASSERT(e->id.n == SEGMENT_ID_LEN && e->name.n <= SEGMENT_NAME_MAX);
    f->length = 0; /* what is there may be of an earlier use */
    f->state = SEGMENT_LIVE;
    f->reserved = 0;
    f->shared = e->shared;
    f->output_tokens = e->output_tokens;
    f->cost_nano = e->cost_nano;
    f->duration_ms = e->duration_ms;
    f->magic = frame_magic;
    f->type = (uint8_t)e->type;
    f->name_n = (uint8_t)e->name.n;
    f->text_n = (uint32_t)e->text.n;
    f->open_number = e->open_number;
    f->open_offset = e->open_offset;
    memcpy(f->id, e->id.p, SEGMENT_ID_LEN);
    memcpy(body, e->name.p, e->name.n);
    memcpy(body + e->name.n, e->text.p, e->text.n);
    f->crc = frame_crc(map, f);
    __atomic_store_n(&f->length, (uint32_t)length, __ATOMIC_RELEASE);
    return length;
}

struct str segment_name(const struct segment_frame *f)
{
    return str_n((const char *)(f + 1), f->name_n);
}

struct str segment_text(const struct segment_frame *f)
{
    return str_n((const char *)(f + 1) + f->name_n, f->text_n);
}

enum segment_state segment_state(const struct segment_frame *f)
{
    uint32_t s = __atomic_load_n(&f->state, __ATOMIC_ACQUIRE);
    return s == SEGMENT_ORPHAN ? SEGMENT_ORPHAN : s == SEGMENT_LIVE ? SEGMENT_LIVE : SEGMENT_DONE;
}

void segment_set_state(struct segment_frame *f, enum segment_state s)
{
    __atomic_store_n(&f->state, (uint32_t)s, __ATOMIC_RELEASE);
}

bool segment_is_frame(const char *map, size_t size, size_t at)
{
    if (at < sizeof(struct segment_header) || at % ALIGN != 0 || at > size ||
        size - at < sizeof(struct segment_frame))
        return false;
    const struct segment_frame *f = frame_at(map, at);
    if (f->magic != frame_magic || (f->type != SEGMENT_OPEN && f->type != SEGMENT_SETTLE))
        return false;
    size_t length = __atomic_load_n(&f->length, __ATOMIC_ACQUIRE);
    if (length > size - at || f->name_n > SEGMENT_NAME_MAX) return false;
    size_t need = sizeof *f + f->name_n + (size_t)f->text_n;
    if (length != (need + ALIGN - 1) / ALIGN * ALIGN) return false;
    return f->crc == frame_crc(map, f);
}

enum err segment_next(const char *map, size_t size, size_t *at, bool *ret_damaged)
{
    size_t i = (*at + ALIGN - 1) / ALIGN * ALIGN;
    bool damaged = false;
    for (; i <= size && size - i >= sizeof(struct segment_frame); i += ALIGN) {
        if (segment_is_frame(map, size, i)) {
            *ret_damaged = i != *at;
            *at = i;
            return ERR_OK;
        }
        uint64_t word;
        memcpy(&word, map + i, sizeof word);
        damaged = damaged || word != 0;
    }
    const struct segment_header *h = (const struct segment_header *)(const void *)map;
    *ret_damaged = damaged && h->uses <= 1;
    return ERR_NOT_FOUND;
}
