/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of plain ASCII counted by the hundred, in the instructions of several processors: like
 * what the scanner and the merges find piece by piece. With VOCAB_DIR, for what is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support_pieces.h"
#include "tokenizer/merge/piece_cache.h"

enum { TEXT = 12000, ROUNDS = 400 };

/* Words and signs of ASCII, some over and over; in some texts now and then what is no ASCII. */
static size_t make_text(const struct rng *rng, const struct vocab *v, char *t)
{
    static const char *const some[] = {
        " the", " of",    " a", "x",  "\n", "\r\n", "  ", "\t",   "        ", "'s",
        "'ll",  "();",    "==", "//", ".",  ", ",   "12", "2026", "Hello",    "getName",
        "ABC",  "\n\n  ", "-",  "_",  "é",  "中",   "“",  "😀",
    };
    enum { ASCII = 24 }; /* of them */
    size_t n = 0, want = rng_below(rng, rng_below(rng, 4) == 0 ? TEXT : 300);
    bool other = rng_below(rng, 3) == 0, rare = rng_below(rng, 2) == 0;
    while (n < want) {
        struct str s;
        char c;
        size_t kind = rng_below(rng, 16);
        if (kind < 8) {
            const char *z = some[rng_below(rng, other ? ARRAY_LEN(some) : (size_t)ASCII)];
            s = str_n(z, strlen(z));
        } else if (kind < 14 || !rare) {
            s = vocab_token(v, (uint32_t)rng_below(rng, vocab_size(v)));
            for (size_t i = 0; !other && i < s.n; i++)
                if (s.p[i] < 0) s.n = 0;
        } else if (kind == 14) { /* longer than a window */
            s = str_n("=====================================================================", 69);
        } else {
            c = (char)rng_below(rng, 128);
            s = str_n(&c, 1);
        }
        if (s.n == 0) continue;
        if (n + s.n > TEXT) break;
        memcpy(t + n, s.p, s.n);
        n += s.n;
    }
    return n;
}

static void check(struct vocab *v, uint64_t seed)
{
    struct rng_fake seeded;
    struct token_list l = { .len = 0 };
    char *t = malloc(TEXT);
    rng_fake_init(&seeded, seed);
    assert_non_null(t);
    for (int i = 0; i < ROUNDS; i++) {
        struct str text = str_n(t, make_text(&seeded.rng, v, t));
        l.len = 0;
        assert_int_equal(token_encode(v, text, SPECIAL_TEXT, &l), ERR_OK);
        for (int isa = SCAN_PORTABLE; isa < SCAN_ISA_END; isa++) {
            uint64_t n = 0;
            piece_windows_fn *f = piece_windows_for((enum scan_isa)isa);
            if (f == NULL) continue;
            v->count_windows = f;
            assert_int_equal(token_count(v, text, SPECIAL_TEXT, &n), ERR_OK);
            assert_int_equal(n, l.len);
        }
    }
    token_list_done(&l);
    free(t);
}

static void windows_count_like_their_pieces(void **state)
{
    (void)state;
    support_each_vocab(check);
}

static void one_form_is_there_everywhere(void **state)
{
    (void)state;
    assert_non_null(piece_windows_for(SCAN_PORTABLE));
    assert_non_null(piece_windows_best());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_count_like_their_pieces),
        cmocka_unit_test(one_form_is_there_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
