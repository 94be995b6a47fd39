/* SPDX-License-Identifier: Apache-2.0 */
/* Repairs UTF-8 and normalizes to NFC as Hugging Face's tokenizers do, one cluster at a time. Pure.
 */
#include "tokenizer/clean.h"

#include <endian.h>

#include "base/utf8.h"
#include "tokenizer/nfc_data.h"
#include "tokenizer/unicode.h"

enum {
    HANGUL_S = 0xac00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11a7,
    HANGUL_LN = 19,
    HANGUL_VN = 21,
    HANGUL_TN = 28,
    SPACE_MARK = 0x2581,
    ORDERS = 256, /* more than there are combining classes */
};

/*
 * One code point, or U+FFFD for a maximal ill-formed subpart. Returns how many bytes it took; sets
 * *ret_open when the bytes end inside a sequence that more bytes could complete.
 */
static size_t next_point(const char *s, size_t n, uint32_t *ret, bool *ret_open)
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

static const struct nfc_decomp *find_decomp(uint32_t cp)
{
    /* without a branch that depends on what is found: this and compose() are asked often */
    const struct nfc_decomp *d = nfc_decomps;
    for (size_t n = nfc_decomps_n; n > 1; n -= n / 2) d += d[n / 2].cp <= cp ? n / 2 : 0;
    return d->cp == cp ? d : NULL;
}

static uint32_t combining_order(uint32_t cp)
{
    size_t lo = 0, hi = nfc_classes_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (nfc_classes[mid].to < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < nfc_classes_n && nfc_classes[lo].from <= cp ? nfc_classes[lo].order : 0;
}

static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= HANGUL_L && a < HANGUL_L + HANGUL_LN && b >= HANGUL_V && b < HANGUL_V + HANGUL_VN)
        return HANGUL_S + ((a - HANGUL_L) * HANGUL_VN + (b - HANGUL_V)) * HANGUL_TN;
    if (a >= HANGUL_S && a < HANGUL_S + HANGUL_LN * HANGUL_VN * HANGUL_TN &&
        (a - HANGUL_S) % HANGUL_TN == 0 && b > HANGUL_T && b < HANGUL_T + HANGUL_TN)
        return a + (b - HANGUL_T);
    const struct nfc_pair *m = nfc_pairs;
    uint64_t both = (uint64_t)a << 32 | b;
    for (size_t n = nfc_pairs_n; n > 1; n -= n / 2)
        m += ((uint64_t)m[n / 2].first << 32 | m[n / 2].second) <= both ? n / 2 : 0;
    return m->first == a && m->second == b ? m->composed : 0;
}

bool clean_stays(uint32_t a, uint32_t b)
{
    bool hangul = a >= HANGUL_S && a < HANGUL_S + HANGUL_LN * HANGUL_VN * HANGUL_TN;
    bool settled = a < 0x80 && clean_settled((char)a);
    return a != 0 && !settled && !hangul && (unicode_class(a) & UC_CARE) == 0 &&
           compose(a, b) == 0 && find_decomp(b) == NULL && (a < 0xc0 || find_decomp(a) == NULL);
}

/* Can cp combine with what stands before it, or move in front of it? */
static bool begins_cluster(uint32_t cp)
{
    if ((unicode_class(cp) & UC_CARE) == 0) return true;
    /* Of the characters that need care, those that merely have another form begin a cluster when
     * that form does. */
    const struct nfc_decomp *d = find_decomp(cp);
    return d != NULL && (unicode_class(nfc_parts[d->at]) & UC_CARE) == 0;
}

bool clean_boundary(const char *p, size_t n, unsigned how)
{
    uint32_t cp;
    bool open;
    if ((how & CLEAN_NFC) == 0) return true;
    (void)next_point(p, n, &cp, &open);
    return !open && begins_cluster(cp);
}

size_t clean_cluster(const char *p, size_t n, bool more, unsigned how)
{
    uint32_t cp;
    bool open;
    if (n == 0) return 0;
    size_t len = next_point(p, n, &cp, &open);
    if (open && more) return 0;
    if ((how & CLEAN_NFC) == 0 || clean_settled(*p)) return len;
    while (len < n) {
        size_t k = next_point(p + len, n - len, &cp, &open);
        if (open && more) return 0;
        if (begins_cluster(cp)) return len;
        len += k;
    }
    return more ? 0 : len;
}

static enum err push_point(struct buf *points, uint32_t cp)
{
    return buf_append(points, &cp, sizeof cp);
}

static enum err decompose(struct buf *points, uint32_t cp)
{
    enum err e;
    if (cp >= HANGUL_S && cp < HANGUL_S + HANGUL_LN * HANGUL_VN * HANGUL_TN) {
        uint32_t s = cp - HANGUL_S, t = s % HANGUL_TN;
        e = push_point(points, HANGUL_L + s / (HANGUL_VN * HANGUL_TN));
        if (e == ERR_OK) e = push_point(points, HANGUL_V + s % (HANGUL_VN * HANGUL_TN) / HANGUL_TN);
        if (e == ERR_OK && t > 0) e = push_point(points, HANGUL_T + t);
        return e;
    }
    const struct nfc_decomp *d = find_decomp(cp);
    if (d == NULL) return push_point(points, cp);
    return buf_append(points, nfc_parts + d->at, d->n * sizeof nfc_parts[0]);
}

/* Sorts a run of marks by their class, stable. `room` is as long as the run. */
static void order_marks(uint32_t *c, size_t n, uint32_t *room)
{
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            uint32_t x = c[i], k = combining_order(x);
            size_t j = i;
            for (; j > 0 && combining_order(c[j - 1]) > k; j--) c[j] = c[j - 1];
            c[j] = x;
        }
        return;
    }
    size_t from[ORDERS + 1] = { 0 };
    for (size_t i = 0; i < n; i++) from[MIN(combining_order(c[i]), (uint32_t)ORDERS - 1) + 1]++;
    for (size_t k = 1; k <= ORDERS; k++) from[k] += from[k - 1];
    for (size_t i = 0; i < n; i++)
        room[from[MIN(combining_order(c[i]), (uint32_t)ORDERS - 1)]++] = c[i];
    memcpy(c, room, n * sizeof *c);
}

/* Composes in place (UAX 15, D117) and returns the new length. */
static size_t compose_all(uint32_t *c, size_t n)
{
    size_t starter = SIZE_MAX, at = 0;
    uint32_t last = 0; /* class of what was kept last behind the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t order = combining_order(c[i]);
        if (starter != SIZE_MAX && (at == starter + 1 || (last != 0 && last < order))) {
            uint32_t whole = compose(c[starter], c[i]);
            if (whole != 0) {
                c[starter] = whole;
                continue;
            }
        }
        if (order == 0) starter = at;
        last = order;
        c[at++] = c[i];
    }
    return at;
}

static enum err append_point(struct buf *out, uint32_t cp, unsigned how)
{
    char utf8[4];
    if ((how & CLEAN_SPACE) != 0 && cp == SPACE_MARK) cp = ' ';
    return buf_append(out, utf8, utf8_encode(cp, utf8));
}

enum err clean_append(const char *p, size_t n, unsigned how, struct buf *points, struct buf *out)
{
    uint32_t cp;
    bool open;
    size_t len = next_point(p, n, &cp, &open);
    if (len == n && ((how & CLEAN_NFC) == 0 || (unicode_class(cp) & UC_CARE) == 0))
        return append_point(out, cp, how);
    buf_clear(points);
    for (size_t i = 0; i < n; i += len) {
        len = next_point(p + i, n - i, &cp, &open);
        enum err e = decompose(points, cp);
        if (e != ERR_OK) return e;
    }
    size_t count = points->len / sizeof cp;
    char *unused;
    enum err e = buf_reserve(points, points->len, &unused); /* room for ordering */
    if (e != ERR_OK) return e;
    uint32_t *c = (uint32_t *)(void *)points->data;
    for (size_t i = 0, run; i < count; i += run) {
        for (run = 0; i + run < count && combining_order(c[i + run]) != 0;) run++;
        if (run > 1) order_marks(c + i, run, c + count);
        if (run == 0) run = 1;
    }
    count = compose_all(c, count);
    for (size_t i = 0; i < count; i++) {
        e = append_point(out, c[i], how);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}
