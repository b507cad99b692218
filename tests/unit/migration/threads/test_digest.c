#include "tests/unit/test.h"

#include <string.h>

#include "migration/threads/digest.h"

static const struct digest_key keys[2] = { { "a secret" }, { "another" } };

static struct unit_hash hash_of(uint64_t n)
{
    return (struct unit_hash){ { n, n * 7 } };
}

static void put_hash(struct digest *digest, uint64_t unit, struct unit_hash hash)
{
    struct digest_change change = { { 0 } };
    digest_replace(digest, &change, unit, hash);
    digest_apply(digest, &change);
}

static void put(struct digest *digest, uint64_t unit, uint64_t n)
{
    put_hash(digest, unit, hash_of(n));
}

static bool same(const struct digest *a, const struct digest *b)
{
    uint64_t x[2], y[2];
    digest_get(a, x);
    digest_get(b, y);
    return x[0] == y[0] && x[1] == y[1];
}

static void the_order_does_not_matter_and_the_place_does(void **state)
{
    struct digest a, b;
    (void)state;

    digest_new(&a, 100, NULL, NULL);
    digest_new(&b, 100, NULL, NULL);
    put(&a, 1, 11), put(&a, 2, 22), put(&a, 99, 33);
    put(&b, 99, 33), put(&b, 1, 11), put(&b, 2, 22);
    assert_true(same(&a, &b));
    put(&b, 1, 22), put(&b, 2, 11); /* swapped contents */
    assert_false(same(&a, &b));
    put(&b, 1, 11), put(&b, 2, 22);
    assert_true(same(&a, &b));
    digest_destroy(&a);
    digest_destroy(&b);
}

static void a_unit_sent_again_replaces_its_share(void **state)
{
    struct digest a, b;
    (void)state;

    digest_new(&a, 8, NULL, NULL);
    digest_new(&b, 8, NULL, NULL);
    put(&a, 3, 5), put(&a, 3, 6), put(&a, 3, 7);
    assert_true(unit_hash_equal(digest_last(&a, 3), hash_of(7)));
    put(&b, 3, 7);
    assert_true(same(&a, &b));
    put_hash(&a, 3, DIGEST_ZERO);
    uint64_t sum[2];
    digest_get(&a, sum);
    assert_true(sum[0] == 0 && sum[1] == 0); /* zeros are as fresh memory */
    digest_destroy(&a);
    digest_destroy(&b);
}

static void both_halves_tell_different_hashes_apart(void **state)
{
    struct digest a, b;
    uint64_t x[2], y[2];
    (void)state;

    digest_new(&a, 8, NULL, NULL);
    digest_new(&b, 8, NULL, NULL);
    put(&a, 0, 1), put(&b, 0, 2);
    digest_get(&a, x);
    digest_get(&b, y);
    assert_true(x[0] != y[0] && x[1] != y[1] && x[0] != x[1]);
    digest_destroy(&a);
    digest_destroy(&b);
}

static void the_hash_of_bytes_sees_every_byte(void **state)
{
    const struct digest_key *const with[] = { NULL, &keys[0] };
    uint8_t unit[4096] = { 0 };
    (void)state;

    for (unsigned k = 0; k < 2; k++) {
        struct unit_hash was = digest_hash(with[k], unit, sizeof(unit));
        for (unsigned i = 0; i < sizeof(unit); i++) {
            unit[i] = 1;
            struct unit_hash now = digest_hash(with[k], unit, sizeof(unit));
            assert_true(now.word[0] != was.word[0] && now.word[1] != was.word[1]);
            assert_false(unit_hash_is_zero(now));
            unit[i] = 0;
        }
    }
}

/* Who does not know it cannot say which contents give the same sum. */
static void another_key_gives_another_hash_and_another_share(void **state)
{
    struct digest a, b;
    uint8_t unit[4096] = { 5 };
    (void)state;

    struct unit_hash one = digest_hash(&keys[0], unit, sizeof(unit)), other = digest_hash(&keys[1], unit, sizeof(unit));
    struct unit_hash none = digest_hash(NULL, unit, sizeof(unit));
    assert_true(one.word[0] != other.word[0] && one.word[1] != other.word[1]);
    assert_true(one.word[0] != one.word[1] && one.word[0] != none.word[0]);
    digest_new(&a, 8, &keys[0], NULL);
    digest_new(&b, 8, &keys[1], NULL);
    put_hash(&a, 3, one), put_hash(&b, 3, one);
    assert_false(same(&a, &b));
    digest_destroy(&a);
    digest_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_does_not_matter_and_the_place_does),
        cmocka_unit_test(a_unit_sent_again_replaces_its_share),
        cmocka_unit_test(both_halves_tell_different_hashes_apart),
        cmocka_unit_test(the_hash_of_bytes_sees_every_byte),
        cmocka_unit_test(another_key_gives_another_hash_and_another_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
