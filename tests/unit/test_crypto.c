/* SPDX-License-Identifier: Apache-2.0 */
/* Digests against published vectors; sealing: what opens, and what must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rt/crypto.h"

static void digests_match_published_vectors(void **state)
{
    (void)state;
    char hex[65];
    /* FIPS 180-4 examples. */
    crypto_sha256_hex(STR("abc"), hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256_hex(STR_NULL, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    /* RFC 4231, test case 2. */
    unsigned char mac[SHA256_LEN];
    crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), mac);
    hex_encode(mac, sizeof(mac), hex);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

/* RFC 4231, test cases 1, 3 and 6: a short key, long data, a key longer than a block. */
static void macs_are_those_of_the_rfc(void **state)
{
    static const struct {
        char key;
        size_t key_n;
        const char *data, *mac;
    } cases[] = {
        { 0x0b, 20, "Hi There",
          "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
        { '\xaa', 20,
          "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd"
          "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd"
          "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd",
          "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
        { '\xaa', 131, "Test Using Larger Than Block-Size Key - Hash Key First",
          "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
    };
    char key[131], hex[SHA256_HEX_LEN + 1];
    unsigned char mac[SHA256_LEN];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memset(key, cases[i].key, sizeof key);
        crypto_hmac_sha256(str_n(key, cases[i].key_n), str_of(cases[i].data), mac);
        hex_encode(mac, sizeof mac, hex);
        assert_string_equal(hex, cases[i].mac);
    }
}

/* Keys and data of lengths around those of a block, as another implementation has them: the digest
 * of all macs, one behind the other. */
static void macs_of_all_lengths_are_right(void **state)
{
    static const size_t keys[] = { 0, 1, 32, 63, 64, 65, 131 },
                        sizes[] = { 0, 1, 55, 64, 119, 200 };
    unsigned char macs[ARRAY_LEN(keys) * ARRAY_LEN(sizes)][SHA256_LEN];
    char key[131], data[200], hex[SHA256_HEX_LEN + 1];
    size_t n = 0;
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(keys); k++)
        for (size_t d = 0; d < ARRAY_LEN(sizes); d++) {
            for (size_t i = 0; i < keys[k]; i++) key[i] = (char)(i * 7 + keys[k]);
            for (size_t i = 0; i < sizes[d]; i++) data[i] = (char)(i * 13 + sizes[d]);
            crypto_hmac_sha256(str_n(key, keys[k]), str_n(data, sizes[d]), macs[n++]);
        }
    crypto_sha256_hex(str_n((const char *)macs, sizeof macs), hex);
    assert_string_equal(hex, "e879a471498ef130d80bd19443719d60d78b3d63d8b57acdacdf02791c90fd10");
}

static void keys_are_64_hex_digits(void **state)
{
    (void)state;
    unsigned char key[32];
    struct why why;
    assert_int_equal(crypto_parse_key(STR("00112233"), key, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "64"));
    assert_int_equal(
        crypto_parse_key(STR("zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"),
                         key, NULL),
        ERR_INVALID);
    assert_int_equal(
        crypto_parse_key(STR("00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"),
                         key, NULL),
        ERR_OK);
    assert_int_equal(key[31], 0xff);
}

static void what_was_sealed_opens_in_its_place_only(void **state)
{
    (void)state;
    unsigned char key[32] = { 1, 2, 3 }, other[32] = { 1, 2, 4 };
    struct buf sealed, again, plain;
    buf_init(&sealed, 4096);
    buf_init(&again, 4096);
    buf_init(&plain, 4096);
    for (size_t n = 0; n < 70; n++) {
        char text[70];
        memset(text, 'x', sizeof(text));
        buf_clear(&sealed);
        buf_clear(&plain);
        struct str secret = str_n(text, n);
        assert_int_equal(crypto_seal(key, STR("id-1"), secret, rng_system(), &sealed), ERR_OK);
        assert_true(str_starts(buf_str(&sealed), STR("v1:")));
        assert_int_equal(crypto_open(key, STR("id-1"), buf_str(&sealed), &plain), ERR_OK);
        assert_true(str_eq(buf_str(&plain), secret));
        buf_clear(&plain);
        assert_int_equal(crypto_open(key, STR("id-2"), buf_str(&sealed), &plain), ERR_DENIED);
        assert_int_equal(crypto_open(other, STR("id-1"), buf_str(&sealed), &plain), ERR_DENIED);
        assert_int_equal(plain.len, 0);
    }
    /* The same text never looks the same twice. */
    assert_int_equal(crypto_seal(key, STR("id-1"), STR("s"), rng_system(), &again), ERR_OK);
    buf_clear(&sealed);
    assert_int_equal(crypto_seal(key, STR("id-1"), STR("s"), rng_system(), &sealed), ERR_OK);
    assert_false(str_eq(buf_str(&sealed), buf_str(&again)));
    buf_done(&sealed);
    buf_done(&again);
    buf_done(&plain);
}

static void any_changed_byte_is_refused(void **state)
{
    (void)state;
    unsigned char key[32] = { 9 };
    struct buf sealed, plain;
    buf_init(&sealed, 4096);
    buf_init(&plain, 4096);
    assert_int_equal(crypto_seal(key, STR("a"), STR("secret"), rng_system(), &sealed), ERR_OK);
    for (size_t i = 0; i < sealed.len; i++) {
        for (int bit = 0; bit < 7; bit++) {
            sealed.data[i] = (char)(sealed.data[i] ^ (1 << bit));
            assert_int_equal(crypto_open(key, STR("a"), buf_str(&sealed), &plain), ERR_DENIED);
            sealed.data[i] = (char)(sealed.data[i] ^ (1 << bit));
        }
        /* Cut anywhere. */
        assert_int_equal(crypto_open(key, STR("a"), str_n(sealed.data, i), &plain), ERR_DENIED);
    }
    assert_int_equal(crypto_open(key, STR("a"), buf_str(&sealed), &plain), ERR_OK);
    buf_done(&sealed);
    buf_done(&plain);
}

static void sealing_respects_the_buffers_bound(void **state)
{
    (void)state;
    unsigned char key[32] = { 9 };
    struct buf small;
    buf_init(&small, 16);
    assert_int_equal(crypto_seal(key, STR("a"), STR("secret"), rng_system(), &small), ERR_LIMIT);
    assert_int_equal(small.len, 0);
    buf_done(&small);
}

static void random_text_is_of_its_alphabet(void **state)
{
    (void)state;
    char a[41], b[41];
    crypto_random_text(rng_system(), 40, a);
    crypto_random_text(rng_system(), 40, b);
    assert_int_equal(strlen(a), 40);
    assert_string_not_equal(a, b);
    assert_int_equal(strspn(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
                     40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_match_published_vectors),
        cmocka_unit_test(macs_are_those_of_the_rfc),
        cmocka_unit_test(macs_of_all_lengths_are_right),
        cmocka_unit_test(keys_are_64_hex_digits),
        cmocka_unit_test(what_was_sealed_opens_in_its_place_only),
        cmocka_unit_test(any_changed_byte_is_refused),
        cmocka_unit_test(sealing_respects_the_buffers_bound),
        cmocka_unit_test(random_text_is_of_its_alphabet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
