/* SPDX-License-Identifier: Apache-2.0 */
/* The size of an image from its header: PNG, GIF, WebP, JPEG. Reads single bytes at known places,
 * through base64 where they are in it. Pure; any thread. */
#include <string.h>

#include "tokenizer/chat/images.h"

enum { SEGMENTS_MAX = 1000 /* of a JPEG, before its frame */ };

struct source {
    struct str text;
    bool base64;
    bool failed; /* read past the end, or what is no base64 */
};

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

static uint32_t byte_at(struct source *s, size_t i)
{
    if (!s->base64) {
        if (i < s->text.n) return (unsigned char)s->text.p[i];
        s->failed = true;
        return 0;
    }
    /* Byte i begins 6 bits behind a sixth of the way for every one before it in its group of 3. */
    size_t at = i / 3 * 4 + i % 3;
    int high = at + 1 < s->text.n ? sextet(s->text.p[at]) : -1;
    int low = at + 1 < s->text.n ? sextet(s->text.p[at + 1]) : -1;
    if (high < 0 || low < 0) {
        s->failed = true;
        return 0;
    }
    unsigned shift = 4 - 2 * (unsigned)(i % 3);
    return (((uint32_t)high << 6 | (uint32_t)low) >> shift) & 0xff;
}

static uint32_t big(struct source *s, size_t at, unsigned n)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < n; i++) v = v << 8 | byte_at(s, at + i);
    return v;
}

static uint32_t little(struct source *s, size_t at, unsigned n)
{
    uint32_t v = 0;
    for (unsigned i = n; i > 0; i--) v = v << 8 | byte_at(s, at + i - 1);
    return v;
}

static bool stands(struct source *s, size_t at, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (byte_at(s, at + i) != (unsigned char)bytes[i] || s->failed) return false;
    return true;
}

static enum err size_of(const struct source *s, uint32_t w, uint32_t h, struct image_size *ret)
{
    if (s->failed || w == 0 || h == 0 || w > IMAGE_SIDE_MAX || h > IMAGE_SIDE_MAX)
        return ERR_UNSUPPORTED;
    *ret = (struct image_size){ w, h };
    return ERR_OK;
}

/* Segment after segment up to the frame that says the size. */
static enum err read_jpeg(struct source *s, struct image_size *ret)
{
    size_t at = 2;
    for (int i = 0; i < SEGMENTS_MAX && !s->failed; i++) {
        if (byte_at(s, at) != 0xff) return ERR_UNSUPPORTED;
        uint32_t marker = byte_at(s, at + 1);
        if (marker == 0xff) { /* padding */
            at++;
            continue;
        }
        bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
                     marker != 0xcc;
        if (frame) return size_of(s, big(s, at + 7, 2), big(s, at + 5, 2), ret);
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) { /* they stand alone */
            at += 2;
            continue;
        }
        uint32_t n = big(s, at + 2, 2);
        if (marker == 0xd9 || marker == 0xda || n < 2) return ERR_UNSUPPORTED;
        at += 2 + n;
    }
    return ERR_UNSUPPORTED;
}

static enum err read_webp(struct source *s, struct image_size *ret)
{
    if (stands(s, 12, "VP8X", 4))
        return size_of(s, little(s, 24, 3) + 1, little(s, 27, 3) + 1, ret);
    if (stands(s, 12, "VP8 ", 4))
        return size_of(s, little(s, 26, 2) & 0x3fff, little(s, 28, 2) & 0x3fff, ret);
    if (!stands(s, 12, "VP8L", 4)) return ERR_UNSUPPORTED;
    uint32_t bits = little(s, 21, 4);
    return size_of(s, (bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1, ret);
}

enum err image_size_read(struct str text, bool base64, struct image_size *ret)
{
    struct source s = { text, base64, false };
    if (stands(&s, 0, "\x89PNG\r\n\x1a\n", 8))
        return size_of(&s, big(&s, 16, 4), big(&s, 20, 4), ret);
    if (stands(&s, 0, "GIF8", 4)) return size_of(&s, little(&s, 6, 2), little(&s, 8, 2), ret);
    if (stands(&s, 0, "\xff\xd8", 2)) return read_jpeg(&s, ret);
    if (stands(&s, 0, "RIFF", 4) && stands(&s, 8, "WEBP", 4)) return read_webp(&s, ret);
    return ERR_UNSUPPORTED;
}

enum err image_size_of_url(struct str url, struct image_size *ret)
{
    const char *comma = url.n >= 5 && str_ieqz(str_n(url.p, 5), "data:") ? memchr(url.p, ',', url.n)
                                                                         : NULL;
    if (comma == NULL) return ERR_NOT_FOUND;
    struct str head = str_n(url.p, (size_t)(comma - url.p));
    struct str data = str_n(comma + 1, url.n - head.n - 1);
    return image_size_read(data, str_ends(head, STR(";base64")), ret);
}
