#include "tests/unit/base/tls_files.h"

#include <errno.h>

#include "base/tls_object.h"

static void add(struct tls_store *store, const char *text)
{
    struct err err = { 0 };
    if (tls_store_add_text(store, text, &err) < 0)
        fail_msg("%s: %s", text, err.text);
}

static void lists_decide_by_the_first_rule_that_matches(void **state)
{
    (void)state;
    struct tls_store *store;
    assert_int_equal(tls_store_new(&store, NULL), 0);
    add(store, "authz-simple,id=one,identity=CN=a,,O=b");
    add(store, "authz-list,id=some,policy=deny,rules.0.match=CN=bad*,rules.0.policy=deny,rules.0.format=glob,"
               "rules.1.match=CN=*,rules.1.policy=allow,rules.1.format=glob");
    add(store, "authz-list,id=most,policy=allow,rules.0.match=CN=bad,rules.0.policy=deny");
    struct authz *one = tls_store_authz(store, "one"), *some = tls_store_authz(store, "some");
    struct authz *most = tls_store_authz(store, "most");
    assert_int_equal(tls_store_delete(store, "one", NULL), 0); /* what was handed out lives on */
    assert_null(tls_store_authz(store, "one"));
    tls_store_free(store);
    assert_true(authz_allows(one, "CN=a,O=b"));
    assert_false(authz_allows(one, "CN=a"));
    assert_true(authz_allows(some, "CN=good"));
    assert_false(authz_allows(some, "CN=bad one"));
    assert_false(authz_allows(some, "qemu"));
    assert_true(authz_allows(most, "CN=good"));
    assert_false(authz_allows(most, "CN=bad"));
    assert_false(authz_allows(most, "")); /* nobody is not "the rest" */
    assert_false(authz_allows(most, NULL));
    authz_unref(one);
    authz_unref(some);
    authz_unref(most);
}

static void what_makes_no_sense_is_refused_by_name(void **state)
{
    (void)state;
    struct tls_files files;
    struct tls_store *store;
    char text[256];
    assert_int_equal(tls_store_new(&store, NULL), 0);
    tls_files_make(&files);
    const char *dir = files.dir;
    const char *const cases[][2] = {
        { "", "needs a type" },
        { "secret,id=a", "no object 'secret'" },
        { "tls-creds-psk,dir=DIR", "needs an id" },
        { "tls-creds-psk,id=a", "needs dir=" },
        { "tls-creds-psk,id=a,dir", "not NAME=VALUE" },
        { "tls-creds-psk,id=a,dir=DIR,sanity-check=on", "no property 'sanity-check'" },
        { "tls-creds-psk,id=a,dir=DIR,username=eve", "no key of 'eve'" },
        { "tls-creds-x509,id=a,dir=DIR,username=eve", "no property 'username'" },
        { "tls-creds-x509,id=a,dir=DIR,verify-peer=maybe", "verify-peer must be on or off" },
        { "tls-creds-x509,id=a,dir=DIR,priority=NORMAL:+COLOUR", "priority" },
        { "authz-list,id=a,rules.64.match=x", "rules come in order" },
        { "authz-list,id=a,rules.0.policy=allow", "rule 0 matches nobody" },
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = { 0 };
        const char *at = strstr(cases[i][0], "DIR");
        snprintf(text, sizeof(text), "%.*s%s%s", at ? (int)(at - cases[i][0]) : 200, cases[i][0], at ? dir : "",
                 at ? at + 3 : "");
        assert_true(tls_store_add_text(store, text, &err) < 0);
        if (!strstr(err.text, cases[i][1]))
            fail_msg("%s: '%s' says nothing of %s", text, err.text, cases[i][1]);
    }
    add(store, "authz-simple,id=a,identity=x");
    assert_int_equal(tls_store_add_text(store, "authz-simple,id=a,identity=y", NULL), -EEXIST);
    assert_int_equal(tls_store_delete(store, "b", NULL), -ENOENT);
    tls_store_free(store);
    tls_files_remove(&files);
}

static void files_that_are_missing_broken_or_old_are_named(void **state)
{
    (void)state;
    struct tls_files files;
    struct tls_store *store;
    char text[256], path[128];
    assert_int_equal(tls_store_new(&store, NULL), 0);
    tls_files_make(&files);
    static const char *const keys[][2] = {
        { "qemu\n", "line 1 is not USER:HEXKEY" },
        { "# words\n\nqemu:xyz\n", "line 3: the key is not written in hexadecimal" },
        { "qemu:0011\n", "line 1: a key of 16 bits can be guessed" },
        { "\n", "there is no key" },
    };
    snprintf(text, sizeof(text), "tls-creds-psk,id=a,dir=%s,endpoint=server", files.dir);
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct err err = { 0 };
        tls_files_write(&files, "keys.psk", keys[i][0], strlen(keys[i][0]));
        assert_true(tls_store_add_text(store, text, &err) < 0);
        if (!strstr(err.text, keys[i][1]) || !strstr(err.text, "/keys.psk"))
            fail_msg("'%s' says nothing of %s", err.text, keys[i][1]);
    }
    struct err err = { 0 };
    snprintf(text, sizeof(text), "tls-creds-x509,id=a,dir=%s,endpoint=server", files.dir);
    tls_files_issue(&files, "server", "there", "there.test", GNUTLS_KP_TLS_WWW_SERVER, -7200, -3600);
    assert_true(tls_store_add_text(store, text, &err) < 0);
    assert_non_null(strstr(err.text, "server-cert.pem has expired"));
    tls_files_issue(&files, "server", "there", "there.test", GNUTLS_KP_TLS_WWW_SERVER, -60, 3600);
    tls_files_write(&files, "ca-crl.pem", "nonsense", 8);
    err_clear(&err);
    assert_true(tls_store_add_text(store, text, &err) < 0);
    assert_non_null(strstr(err.text, "ca-crl.pem"));
    snprintf(path, sizeof(path), "%s/ca-crl.pem", files.dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/server-key.pem", files.dir);
    unlink(path);
    err_clear(&err);
    assert_int_equal(tls_store_add_text(store, text, &err), -ENOENT);
    assert_non_null(strstr(err.text, "there is no"));
    assert_non_null(strstr(err.text, "server-key.pem"));
    tls_store_free(store);
    tls_files_remove(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_decide_by_the_first_rule_that_matches),
        cmocka_unit_test(what_makes_no_sense_is_refused_by_name),
        cmocka_unit_test(files_that_are_missing_broken_or_old_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
