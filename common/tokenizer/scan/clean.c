/* SPDX-License-Identifier: Apache-2.0 */
/* Repairs UTF-8 and normalizes to NFC as Hugging Face's tokenizers do, one cluster at a time. Pure.
 */
#include "tokenizer/scan/clean.h"

#include <endian.h>

#include "base/utf8.h"
#include "tokenizer/scan/nfc_data.h"
#include "tokenizer/scan/unicode.h"

enum {
    HANGUL_S = 0xac00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11a7,
    HANGUL_LN = 19,
    HANGUL_VN = 21,
    HANGUL_TN = 28,
    SPACE_MARK = 0x2581,
    FEW = 32,  /* marks that are sorted by insertion */
    SOME = 64, /* points that are written with one look at the room */
    PARTS = 4, /* points that one becomes, at most */
};

size_t clean_point(const char *s, size_t n, uint32_t *ret, bool *ret_open)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t len = utf8_decode(s, n, ret);
    *ret_open = false;
    if (len > 0) return len;
    *ret = 0xfffd;
    size_t want = p[0] >= 0xf0 && p[0] <= 0xf4  ? 4
                  : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
                  : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                                                : 1;
    if (want == 1) return 1;
    if (n < 2) return *ret_open = true, 1;
    unsigned char lo = 0x80, hi = 0xbf;
    if (p[0] == 0xe0) lo = 0xa0;
    if (p[0] == 0xed) hi = 0x9f;
    if (p[0] == 0xf0) lo = 0x90;
    if (p[0] == 0xf4) hi = 0x8f;
    if (p[1] < lo || p[1] > hi) return 1;
    for (size_t i = 2; i < want; i++) {
        if (i == n) return *ret_open = true, i;
        if ((p[i] & 0xc0) != 0x80) return i;
    }
    return want; /* not reached: it would have decoded */
}

/* Bytes of characters from U+4E00 to U+9FBF at p: normalization leaves them alone. */
static inline size_t plain_han(const char *p, size_t n)
{
    size_t i = 0;
    for (uint32_t w; i + 4 <= n; i += 3) {
        memcpy(&w, p + i, 4);
        w = be32toh(w);
        if ((w & 0xf0c0c000u) != 0xe0808000u || w < 0xe4b88000u || w >= 0xe9bf8000u) break;
    }
    return i;
}

size_t clean_prefix(const char *p, size_t n, unsigned how)
{
    size_t i = clean_plain(p, n);
    for (;;) {
        while (i + 8 <= n) {
            uint64_t w;
            memcpy(&w, p + i, 8);
            if ((w & 0x8080808080808080u) != 0) break;
            i += 8;
        }
        while (i < n && (unsigned char)p[i] < 0x80) i++;
        if (i == n) return n;
        i += plain_han(p + i, n - i);
        while (i < n && (unsigned char)p[i] >= 0x80) {
            uint32_t cp;
            size_t len = utf8_decode(p + i, n - i, &cp);
            if (len == 0) return i;
            if ((how & CLEAN_NFC) != 0 && cp >= 0x300 && (unicode_class(cp) & UC_CARE) != 0)
                return i;
            if ((how & CLEAN_SPACE) != 0 && cp == SPACE_MARK) return i;
            /* Below U+0300 nothing needs care: it is composed already and combines with nothing
             * before it. */
            i += len;
        }
        if (n - i >= 64) i += clean_plain(p + i, n - i);
    }
}

static inline bool is_hangul(uint32_t cp)
{
    return cp >= HANGUL_S && cp < HANGUL_S + HANGUL_LN * HANGUL_VN * HANGUL_TN;
}

static inline bool changes(uint32_t cp)
{
    const uint32_t *parts;
    return nfc_parts_of(nfc_facts(cp), &parts) > 0;
}

/* What the two become together; 0: nothing. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= HANGUL_L && a < HANGUL_L + HANGUL_LN && b >= HANGUL_V && b < HANGUL_V + HANGUL_VN)
        return HANGUL_S + ((a - HANGUL_L) * HANGUL_VN + (b - HANGUL_V)) * HANGUL_TN;
    if (is_hangul(a) && (a - HANGUL_S) % HANGUL_TN == 0 && b > HANGUL_T && b < HANGUL_T + HANGUL_TN)
        return a + (b - HANGUL_T);
    unsigned first = nfc_first(nfc_facts(a));
    if (first == 0) return 0;
    const struct nfc_pair *m = nfc_pairs + nfc_firsts[first];
    for (size_t n = nfc_firsts[first + 1] - nfc_firsts[first]; n > 1; n -= n / 2)
        m += m[n / 2].second <= b ? n / 2 : 0; /* no branch: it could not be foreseen */
    return m->second == b ? m->composed : 0;
}

bool clean_stays(uint32_t a, uint32_t b)
{
    bool settled = a < 0x80 && clean_settled((char)a);
    return a != 0 && !settled && !is_hangul(a) && (unicode_class(a) & UC_CARE) == 0 &&
           compose(a, b) == 0 && !changes(b) && (a < 0xc0 || !changes(a));
}

/* Can cp combine with what stands before it, or move in front of it? */
static bool begins_cluster(uint32_t cp)
{
    if ((unicode_class(cp) & UC_CARE) == 0) return true;
    /* Of the characters that need care, those that merely have another form begin a cluster when
     * that form does. */
    const uint32_t *parts;
    return nfc_parts_of(nfc_facts(cp), &parts) > 0 &&
           (unicode_class(*parts & NFC_CP) & UC_CARE) == 0;
}

bool clean_boundary(const char *p, size_t n, unsigned how)
{
    uint32_t cp;
    bool open;
    if ((how & CLEAN_NFC) == 0) return true;
    (void)clean_point(p, n, &cp, &open);
    return !open && begins_cluster(cp);
}

size_t clean_cluster(const char *p, size_t n, bool more, unsigned how)
{
    uint32_t cp;
    bool open;
    if (n == 0) return 0;
    size_t len = clean_point(p, n, &cp, &open);
    if (open && more) return 0;
    if ((how & CLEAN_NFC) == 0 || clean_settled(*p)) return len;
    while (len < n) {
        size_t k = clean_point(p + len, n - len, &cp, &open);
        if (open && more) return 0;
        if (begins_cluster(cp)) return len;
        len += k;
    }
    return more ? 0 : len;
}

/* Writes the points that cp becomes; returns how many, at most PARTS. */
static inline size_t decompose(uint32_t cp, uint32_t *to)
{
    if (is_hangul(cp)) {
        uint32_t s = cp - HANGUL_S, t = s % HANGUL_TN, second = 1u << NFC_SECOND_AT;
        to[0] = HANGUL_L + s / (HANGUL_VN * HANGUL_TN);
        to[1] = (HANGUL_V + s % (HANGUL_VN * HANGUL_TN) / HANGUL_TN) | second;
        to[2] = (HANGUL_T + t) | second;
        return t > 0 ? 3 : 2;
    }
    const uint32_t *parts;
    uint32_t facts = nfc_facts(cp);
    size_t n = nfc_parts_of(facts, &parts);
    for (size_t i = 0; i < n; i++) to[i] = parts[i];
    if (n == 0) to[0] = cp | (facts & NFC_ABOVE);
    return MAX(n, (size_t)1);
}

static inline uint32_t order_of(uint32_t point)
{
    return point >> NFC_ORDER_AT;
}

/* Sorts a run of marks by their class, stable. `room` is as long as the run if that is not FEW. */
static void order_marks(uint32_t *c, size_t n, uint32_t *room)
{
    if (n <= FEW) {
        for (size_t i = 1; i < n; i++) {
            uint32_t x = c[i];
            size_t j = i;
            for (; j > 0 && order_of(c[j - 1]) > order_of(x); j--) c[j] = c[j - 1];
            c[j] = x;
        }
        return;
    }
    size_t from[NFC_ORDERS + 1] = { 0 };
    for (size_t i = 0; i < n; i++) from[order_of(c[i]) + 1]++;
    for (size_t k = 1; k <= NFC_ORDERS; k++) from[k] += from[k - 1];
    for (size_t i = 0; i < n; i++) room[from[order_of(c[i])]++] = c[i];
    memcpy(c, room, n * sizeof *c);
}

/* Sorts all runs of marks among the points. */
static enum err order_all(struct buf *points, size_t count)
{
    uint32_t *c = (uint32_t *)(void *)points->data;
    for (size_t i = 0, run; i < count; i += run + 1) {
        for (run = 0; i + run < count && order_of(c[i + run]) != 0;) run++;
        if (run > FEW) {
            char *room;
            enum err e = buf_reserve(points, run * sizeof *c, &room);
            if (e != ERR_OK) return e;
            c = (uint32_t *)(void *)points->data;
        }
        if (run > 1) order_marks(c + i, run, c + count);
    }
    return ERR_OK;
}

/* Composes in place (UAX 15, D117) and returns the new length. */
static size_t compose_all(uint32_t *c, size_t n)
{
    size_t starter = SIZE_MAX, at = 0;
    uint32_t last = 0; /* class of what was kept last behind the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t x = c[i], order = order_of(x);
        bool second = (x >> NFC_SECOND_AT & 1) != 0;
        if (second && starter != SIZE_MAX && (at == starter + 1 || (last != 0 && last < order))) {
            uint32_t whole = compose(c[starter] & NFC_CP, x & NFC_CP);
            if (whole != 0) {
                c[starter] = whole;
                continue;
            }
        }
        if (order == 0) starter = at;
        last = order;
        c[at++] = x;
    }
    return at;
}

static enum err append_points(struct buf *out, const uint32_t *c, size_t n, unsigned how)
{
    for (size_t i = 0; i < n;) {
        size_t some = MIN(n - i, (size_t)SOME);
        char *from, *to;
        enum err e = buf_reserve(out, 4 * some, &from);
        if (e != ERR_OK) return e;
        to = from;
        for (size_t end = i + some; i < end; i++) {
            uint32_t cp = c[i] & NFC_CP;
            to += utf8_encode((how & CLEAN_SPACE) != 0 && cp == SPACE_MARK ? ' ' : cp, to);
        }
        out->len += (size_t)(to - from);
    }
    return ERR_OK;
}

enum err clean_append(const char *p, size_t n, unsigned how, struct buf *points, struct buf *out)
{
    uint32_t cp;
    bool open;
    size_t len = clean_point(p, n, &cp, &open), count = 0;
    if (len == n && ((how & CLEAN_NFC) == 0 || (unicode_class(cp) & UC_CARE) == 0))
        return append_points(out, &cp, 1, how);
    buf_clear(points);
    for (size_t i = 0; i < n;) {
        char *room;
        enum err e = buf_reserve(points, SOME * PARTS * sizeof cp, &room);
        if (e != ERR_OK) return e;
        uint32_t *to = (uint32_t *)(void *)points->data;
        for (size_t end = count + SOME * (PARTS - 1); i < n && count <= end; i += len) {
            len = clean_point(p + i, n - i, &cp, &open);
            count += decompose(cp, to + count);
        }
        points->len = count * sizeof cp;
    }
    enum err e = order_all(points, count);
    if (e != ERR_OK) return e;
    uint32_t *c = (uint32_t *)(void *)points->data;
    return append_points(out, c, compose_all(c, count), how);
}
