/* test_config_hub.c - huggingface_hub's variables, in its order of precedence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/config.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "TRANSFORMERS_OFFLINE",
};

static int clear(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("HOME", "/home/me", 1);
    return 0;
}

static bool load(struct config *c, const char *option, const char *value, struct status *st)
{
    char *argv[] = { "inferd", "pull", "org/name", (char *)option, (char *)value, NULL };
    return config_load(option ? 5 : 3, argv, c, st);
}

static struct config_hub expect(struct config *c, const char *option, const char *value)
{
    struct status st;
    if (!load(c, option, value, &st))
        fail_msg("%s", st.message);
    return c->hub;
}

static void test_defaults(void **state)
{
    struct config c;
    (void)state;
    struct config_hub hub = expect(&c, NULL, NULL);
    assert_int_equal(c.command, COMMAND_PULL);
    assert_string_equal(hub.cache_dir, "/home/me/.cache/huggingface/hub");
    assert_string_equal(hub.token_file, "/home/me/.cache/huggingface/token");
    assert_string_equal(hub.endpoint, "https://huggingface.co");
    assert_null(hub.token);
    assert_null(hub.ca_file);
    assert_false(hub.offline);
    assert_int_equal(hub.timeout_s, 10);
    config_free(&c);
}

static void expect_cache(const char *option, const char *value, const char *path)
{
    struct config c;
    assert_string_equal(expect(&c, option, value).cache_dir, path);
    config_free(&c);
}

static void test_cache(void **state)
{
    (void)state;
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    expect_cache(NULL, NULL, "/xdg/huggingface/hub");
    setenv("HF_HOME", "~/hf", 1);
    expect_cache(NULL, NULL, "/home/me/hf/hub");
    setenv("HUGGINGFACE_HUB_CACHE", "/old", 1);
    expect_cache(NULL, NULL, "/old");
    setenv("HF_HUB_CACHE", "/new", 1);
    expect_cache(NULL, NULL, "/new");
    expect_cache("--download-dir", "/here", "/here");
    setenv("HF_HUB_CACHE", "", 1); /* as good as not set */
    setenv("HUGGINGFACE_HUB_CACHE", "", 1);
    expect_cache(NULL, NULL, "/home/me/hf/hub");
}

static void test_no_home(void **state)
{
    struct config c;
    (void)state;
    unsetenv("HOME");
    assert_null(expect(&c, NULL, NULL).cache_dir);
    assert_null(c.hub.token_file);
    config_free(&c);
}

static void test_token(void **state)
{
    struct config c;
    struct status st;
    struct buf text;
    (void)state;
    setenv("HF_TOKEN", "hf_env\n", 1);
    assert_string_equal(expect(&c, NULL, NULL).token, "hf_env");
    config_free(&c);
    assert_string_equal(expect(&c, "--hf-token", "hf_option").token, "hf_option");
    buf_init(&text, 0);
    config_describe(&c, &text);
    assert_null(strstr(buf_str(&text), "hf_option"));
    buf_free(&text);
    config_free(&c);
    setenv("HF_TOKEN", "a\r\nX-Evil: 1", 1);
    assert_false(load(&c, NULL, NULL, &st));
    assert_null(strstr(st.message, "Evil"));
}

static void test_endpoint_and_flags(void **state)
{
    struct config c;
    struct status st;
    (void)state;
    setenv("HF_ENDPOINT", "http://mirror:8080/hf//", 1);
    setenv("TRANSFORMERS_OFFLINE", "Yes", 1);
    setenv("HF_HUB_DOWNLOAD_TIMEOUT", "30", 1);
    setenv("SSL_CERT_FILE", "/ca.pem", 1);
    struct config_hub hub = expect(&c, NULL, NULL);
    assert_string_equal(hub.endpoint, "http://mirror:8080/hf");
    assert_string_equal(hub.ca_file, "/ca.pem");
    assert_true(hub.offline);
    assert_int_equal(hub.timeout_s, 30);
    config_free(&c);
    setenv("HF_HUB_OFFLINE", "0", 1);
    assert_false(expect(&c, NULL, NULL).offline);
    config_free(&c);
    setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon", 1);
    assert_false(load(&c, NULL, NULL, &st));
    assert_non_null(strstr(st.message, "HF_HUB_DOWNLOAD_TIMEOUT"));
    setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1", 1);
    setenv("HF_ENDPOINT", "ftp://x", 1);
    assert_false(load(&c, NULL, NULL, &st));
    assert_non_null(strstr(st.message, "HF_ENDPOINT"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults, clear),
        cmocka_unit_test_setup(test_cache, clear),
        cmocka_unit_test_setup(test_no_home, clear),
        cmocka_unit_test_setup(test_token, clear),
        cmocka_unit_test_setup(test_endpoint_and_flags, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
