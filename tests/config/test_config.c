/* test_config.c - every source of options, their precedence, and what is refused with which words.
 */
#include "config/config.h"
#include "config/option.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { MAX_ARGS = 16 };

/* Loads "inferd" plus the words, which end with NULL. */
static bool load(struct config *c, struct status *st, const char *const *words)
{
    char *argv[MAX_ARGS + 2] = { (char *)"inferd" };
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    status_clear(st);
    return config_load(argc, argv, c, st);
}

#define LOAD(c, st, ...) load(c, st, (const char *const[]){ __VA_ARGS__, NULL })

/* Asserts a refusal whose message holds each of the words. */
static void check_refused(const char *const *argv, const char *const *words)
{
    struct config c;
    struct status st;
    if (load(&c, &st, argv)) {
        config_free(&c);
        fail_msg("accepted, though it should name: %s", words[0]);
    }
    assert_int_not_equal(st.code, STATUS_OK);
    for (; *words; words++)
        if (!strstr(st.message, *words))
            fail_msg("'%s' is not in: %s", *words, st.message);
}

#define ARGV(...)          ((const char *const[]){ __VA_ARGS__, NULL })
#define REFUSED(argv, ...) check_refused(argv, (const char *const[]){ __VA_ARGS__, NULL })

static char directory[] = "/tmp/inferd-config-XXXXXX";
static char path[64];

static const char *write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof(path), "%s/c.json", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static void test_defaults(void **state)
{
    (void)state;
    struct config c, d;
    struct status st;
    config_defaults(&d);
    assert_true(LOAD(&c, &st, "serve", "models/x"));
    assert_int_equal(c.command, COMMAND_SERVE);
    assert_string_equal(c.model, "models/x");
    for (int32_t i = 0; i < option_count; i++) {
        assert_true(option_is_default(&option_table[i], &c));
        assert_true(option_is_default(&option_table[i], &d));
    }
    assert_int_equal(c.port, 8000);
    assert_null(c.api_key);
    assert_true(c.enable_prefix_caching);
    config_free(&c);
}

/* Each default must pass its own row's checks, or the sample file would be refused. */
static void test_defaults_are_in_range(void **state)
{
    (void)state;
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->kind == OPTION_KIND_INT)
            assert_in_range(o->def.integer - o->min.integer, 0, o->max.integer - o->min.integer);
        if (o->kind == OPTION_KIND_FLOAT)
            assert_true(o->def.number >= o->min.number && o->def.number <= o->max.number);
        if (o->kind != OPTION_KIND_GROUP)
            assert_true(strlen(o->name) < 48);
    }
}

/* A choice between auto, true and false is given like a flag, and its words may follow. */
static void test_switches(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_string_equal(c.async_scheduling, "auto");
    config_free(&c);
    assert_true(LOAD(&c, &st, "serve", "--async-scheduling", "m"));
    assert_string_equal(c.async_scheduling, "true");
    assert_string_equal(c.model, "m");
    config_free(&c);
    assert_true(LOAD(&c, &st, "serve", "m", "--async-scheduling", "auto"));
    assert_string_equal(c.async_scheduling, "auto");
    config_free(&c);
    assert_true(LOAD(&c, &st, "serve", "m", "--no-async-scheduling"));
    assert_string_equal(c.async_scheduling, "false");
    config_free(&c);
    assert_false(LOAD(&c, &st, "serve", "m", "--async-scheduling=maybe"));
    assert_non_null(strstr(st.message, "auto|true|false"));
    config_free(&c);
    assert_false(LOAD(&c, &st, "serve", "m", "--no-dtype"));
    config_free(&c);
}

static void test_argument_forms(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    assert_true(LOAD(&c, &st, "bench", "--max-model-len", "4k", "--max_num_seqs=64", "--json",
                     "--no-enable-prefix-caching", "--no_log_stats", "--log-requests=false", "m",
                     "--dtype=bfloat16", "--pin-threads", "false"));
    assert_int_equal(c.command, COMMAND_BENCH);
    assert_string_equal(c.model, "m");
    assert_int_equal(c.max_model_len, 4000);
    assert_int_equal(c.max_num_seqs, 64);
    assert_true(c.json);
    assert_false(c.enable_prefix_caching);
    assert_false(c.log_stats);
    assert_false(c.log_requests);
    assert_false(c.pin_threads);
    assert_string_equal(c.dtype, "bfloat16");
    config_free(&c);

    /* A flag takes the next word only when it is true or false. */
    assert_true(LOAD(&c, &st, "plan", "--json", "m"));
    assert_true(c.json);
    assert_string_equal(c.model, "m");
    assert_int_equal(c.command, COMMAND_PLAN);
    config_free(&c);

    /* The last one counts; --model is MODEL; after -- everything is MODEL. */
    assert_true(LOAD(&c, &st, "serve", "--port", "1", "--port=2", "--model", "a", "a"));
    assert_int_equal(c.port, 2);
    config_free(&c);
    assert_true(LOAD(&c, &st, "serve", "--", "--odd"));
    assert_string_equal(c.model, "--odd");
    config_free(&c);
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool valid;
        int64_t value;
    } cases[] = {
        { "0", true, 0 },
        { "12", true, 12 },
        { "1k", true, 1000 },
        { "1K", true, 1024 },
        { "2m", true, 2000000 },
        { "2M", true, 2097152 },
        { "3g", true, 3000000000 },
        { "3G", true, INT64_C(3) << 30 },
        { "-5", true, -5 },
        { "+5", true, 5 },
        { "9223372036854775807", true, INT64_MAX },
        { "9223372036854775808", false, 0 },
        { "9223372036854775807k", false, 0 },
        { "", false, 0 },
        { " 1", false, 0 },
        { "1 ", false, 0 },
        { "1kk", false, 0 },
        { "1.5", false, 0 },
        { "0x10", false, 0 },
        { "k", false, 0 },
        { "--1", false, 0 },
        { "auto", false, 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t value = 0;
        bool valid = option_parse_int(cases[i].text, &value);
        if (valid != cases[i].valid || (valid && value != cases[i].value))
            fail_msg("'%s' gave %d, %lld", cases[i].text, valid, (long long)value);
    }
}

static void test_precedence(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    write_file("{\"port\": 1001, \"host\": \"::1\", \"block-size\": 32, \"model\": \"from-file\","
               " \"json\": null}");
    setenv("INFERD_PORT", "1002", 1);
    setenv("INFERD_BLOCK_SIZE", "64", 1);
    assert_true(LOAD(&c, &st, "serve", "--config", path, "--port", "1003"));
    assert_int_equal(c.port, 1003);       /* command line over both */
    assert_int_equal(c.block_size, 64);   /* environment over the file */
    assert_string_equal(c.host, "::1");   /* file over the default */
    assert_string_equal(c.dtype, "auto"); /* default */
    assert_string_equal(c.model, "from-file");
    config_free(&c);

    setenv("INFERD_MODEL", "from-env", 1);
    assert_true(LOAD(&c, &st, "serve", "--config", path));
    assert_int_equal(c.port, 1002);
    assert_string_equal(c.model, "from-env");
    config_free(&c);
    assert_true(LOAD(&c, &st, "serve", "--config", path, "from-line"));
    assert_string_equal(c.model, "from-line");
    config_free(&c);

    /* INFERD_CONFIG names the file when the command line names none; empty is not set. */
    setenv("INFERD_CONFIG", path, 1);
    setenv("INFERD_BLOCK_SIZE", "", 1);
    assert_true(LOAD(&c, &st, "serve"));
    assert_int_equal(c.block_size, 32);
    config_free(&c);
    unsetenv("INFERD_CONFIG");
    unsetenv("INFERD_MODEL");
    unsetenv("INFERD_PORT");
    unsetenv("INFERD_BLOCK_SIZE");
}

static void test_file_values(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    write_file("{\"max_model_len\": \"2K\", \"request_timeout\": 2.5, \"shutdown_timeout\": 3,"
               " \"enable_prefix_caching\": false, \"api_key\": [\"a\", \"b\"],"
               " \"bench_batch_size\": [1, 4], \"bench_input_len\": 64}");
    assert_true(LOAD(&c, &st, "serve", "m", "--config", path));
    assert_int_equal(c.max_model_len, 2048);
    assert_true(c.request_timeout == 2.5 && c.shutdown_timeout == 3.0);
    assert_false(c.enable_prefix_caching);
    assert_string_equal(c.api_key, "a,b");
    assert_string_equal(c.bench_batch_size, "1,4");
    assert_string_equal(c.bench_input_len, "64");
    config_free(&c);
}

static void test_refused_on_the_command_line(void **state)
{
    (void)state;
    REFUSED(ARGV("serve", "m", "--max-num-seq", "3"), "--max-num-seq", "did you mean",
            "--max-num-seqs");
    REFUSED(ARGV("serve", "m", "--bogus-thing-here=1"), "'--bogus-thing-here'", "--help");
    REFUSED(ARGV("serve", "m", "--port", "65536"), "--port", "'65536'", "0 to 65535",
            "command line");
    REFUSED(ARGV("serve", "m", "--port=-1"), "--port", "'-1'");
    REFUSED(ARGV("serve", "m", "--port", "http"), "'http'", "integer");
    REFUSED(ARGV("serve", "m", "--gpu-memory-utilization", "1.5"), "--gpu-memory-utilization",
            "'1.5'", "0.01 to 1");
    REFUSED(ARGV("serve", "m", "--gpu-memory-utilization", "nan"), "'nan'");
    REFUSED(ARGV("serve", "m", "--request-timeout", "1e999"), "'1e999'");
    REFUSED(ARGV("serve", "m", "--dtype", "int8"), "--dtype", "'int8'", "bfloat16");
    REFUSED(ARGV("serve", "m", "--dtype", ""), "--dtype");
    REFUSED(ARGV("serve", "m", "--dtype", "auto|half"), "'auto|half'");
    REFUSED(ARGV("serve", "m", "--json=maybe"), "--json", "'maybe'", "true or false");
    REFUSED(ARGV("serve", "m", "--no-json=true"), "--no-json", "no value");
    REFUSED(ARGV("serve", "m", "--no-port"), "'--no-port'");
    REFUSED(ARGV("serve", "m", "--port"), "--port", "needs a value");
    REFUSED(ARGV("serve", "m", "--host", "--port", "80"), "--host", "needs a value");
    REFUSED(ARGV("serve", "m", "--host="), "--host", "not empty");
    REFUSED(ARGV("serve", "m", "-x"), "'-x'");
    REFUSED(ARGV("serve", "a", "b"), "more than one MODEL", "'a'", "'b'");
    REFUSED(ARGV("serve", ""), "MODEL", "empty");
    REFUSED(ARGV("serve"), "no MODEL", "inferd serve MODEL");
    REFUSED(ARGV("bench"), "inferd bench MODEL");
    REFUSED(ARGV("models/x"), "'models/x'", "did you mean inferd serve models/x");
    REFUSED(ARGV("--port", "80"), "command comes first");
    REFUSED(((const char *const[]){ NULL }), "no command");
}

static void test_refused_together(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    REFUSED(ARGV("serve", "m", "--block-size", "24"), "--block-size", "24", "power of two");
    REFUSED(ARGV("serve", "m", "--max-num-seqs", "64", "--max-num-batched-tokens", "16"),
            "--max-num-batched-tokens", "16", "--max-num-seqs 64");
    REFUSED(ARGV("serve", "m", "--api-key", "a,,b"), "--api-key", "empty");
    REFUSED(ARGV("serve", "m", "--api-key", "a,"), "--api-key", "empty");
    /* Small steps alone are fine: the number of sequences follows. */
    assert_true(LOAD(&c, &st, "serve", "m", "--max-num-batched-tokens", "16"));
    assert_int_equal(c.max_num_seqs, 16);
    config_free(&c);
}

static void test_refused_in_the_environment(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    setenv("INFERD_PORT", "99999", 1);
    REFUSED(ARGV("serve", "m"), "--port", "'99999'", "environment variable INFERD_PORT");
    unsetenv("INFERD_PORT");
    setenv("INFERD_MAX_MODEL_LENGTH", "4096", 1);
    REFUSED(ARGV("serve", "m"), "environment variable INFERD_MAX_MODEL_LENGTH", "did you mean",
            "--max-model-len");
    unsetenv("INFERD_MAX_MODEL_LENGTH");
    setenv("INFERD_port", "1", 1);
    REFUSED(ARGV("serve", "m"), "INFERD_port");
    unsetenv("INFERD_port");

    /* What a container platform tells about services of our name is not for us. */
    setenv("INFERD_PORT", "tcp://10.0.0.1:8000", 1);
    setenv("INFERD_SERVICE_HOST", "10.0.0.1", 1);
    setenv("INFERD_SERVICE_PORT", "8000", 1);
    setenv("INFERD_PORT_8000_TCP_ADDR", "10.0.0.1", 1);
    setenv("INFERD_CANARY_PORT", "tcp://10.0.0.2:8000", 1);
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_int_equal(c.port, 8000);
    config_free(&c);
    unsetenv("INFERD_PORT");
    unsetenv("INFERD_SERVICE_HOST");
    unsetenv("INFERD_SERVICE_PORT");
    unsetenv("INFERD_PORT_8000_TCP_ADDR");
    unsetenv("INFERD_CANARY_PORT");
}

static void test_refused_in_the_file(void **state)
{
    (void)state;
    const char *const *argv = ARGV("serve", "m", "--config", path);
    write_file("{\"max_num_seqs\": 0}");
    REFUSED(argv, "--max-num-seqs", "'0'", "1 to 4096", path, "key \"max_num_seqs\"");
    write_file("{\"max_num_sequences\": 1}");
    REFUSED(argv, "'max_num_sequences'", path);
    write_file("{\"port\": \"\"}");
    REFUSED(argv, "--port");
    write_file("{\"port\": 80.5}");
    REFUSED(argv, "--port", "80.5");
    write_file("{\"port\": true}");
    REFUSED(argv, "--port", "'true'");
    write_file("{\"json\": \"true\"}");
    REFUSED(argv, "--json");
    write_file("{\"host\": 5}");
    REFUSED(argv, "--host", "'5'");
    write_file("{\"host\": [\"a\"]}");
    REFUSED(argv, "--host");
    write_file("{\"api_key\": [\"secret-a,b\"]}");
    REFUSED(argv, "--api-key");
    write_file("{\"port\": {}}");
    REFUSED(argv, "--port");
    write_file("{\"model\": 3}");
    REFUSED(argv, "key \"model\"", path);
    write_file("{\"port\": 1, \"port\": 2}");
    REFUSED(argv, path, "duplicate");
    write_file("{\"block-size\": 16, \"block_size\": 32}");
    REFUSED(argv, path, "block_size", "twice");
    write_file("[1]");
    REFUSED(argv, path, "object");
    write_file("{\"port\": 1,}");
    REFUSED(argv, path, "line 1");
    write_file("");
    REFUSED(argv, path);
    REFUSED(ARGV("serve", "m", "--config", "/nonexistent/x.json"), "/nonexistent/x.json",
            "cannot open");
    REFUSED(ARGV("serve", "m", "--config", directory), directory, "not a regular file");
    REFUSED(ARGV("serve", "m", "--config", ""), "--config", "empty");
}

static void test_large_file(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < (1 << 20) + 10; i++)
        fputc(' ', f);
    fputs("{}", f);
    fclose(f);
    REFUSED(ARGV("serve", "m", "--config", path), path, "larger than");
}

static void test_fifo_does_not_hang(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    REFUSED(ARGV("serve", "m", "--config", path), "not a regular file");
    unlink(path);
    write_file("{}");
}

static void test_help_and_version(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    static const char *const help[][3] = {
        { "--help", NULL },          { "-h", NULL },         { "help", NULL },
        { "serve", "--help", NULL }, { "plan", "-h", NULL },
    };
    for (size_t i = 0; i < sizeof(help) / sizeof(help[0]); i++) {
        assert_true(load(&c, &st, help[i]));
        assert_int_equal(c.command, COMMAND_HELP);
        config_free(&c);
    }
    assert_true(LOAD(&c, &st, "--version"));
    assert_int_equal(c.command, COMMAND_VERSION);
    config_free(&c);
    /* Help is given even where the environment is broken. */
    setenv("INFERD_PORT", "x", 1);
    assert_true(LOAD(&c, &st, "serve", "--help"));
    assert_int_equal(c.command, COMMAND_HELP);
    config_free(&c);
    unsetenv("INFERD_PORT");
}

static void test_supervisor(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    char text[64];
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_null(c.notify_socket);
    assert_int_equal(c.watchdog_usec, 0);
    assert_false(c.journal_stream);
    config_free(&c);

    struct stat info;
    assert_int_equal(fstat(STDERR_FILENO, &info), 0);
    snprintf(text, sizeof(text), "%ju:%ju", (uintmax_t)info.st_dev, (uintmax_t)info.st_ino);
    setenv("JOURNAL_STREAM", text, 1);
    setenv("NOTIFY_SOCKET", "@abstract", 1);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_string_equal(c.notify_socket, "@abstract");
    assert_int_equal(c.watchdog_usec, 30000000);
    assert_true(c.journal_stream);
    config_free(&c);

    snprintf(text, sizeof(text), "%d", (int)getpid());
    setenv("WATCHDOG_PID", text, 1);
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_int_equal(c.watchdog_usec, 30000000);
    config_free(&c);

    /* Meant for our parent; another stream; a number that is none. */
    setenv("WATCHDOG_PID", "1", 1);
    setenv("JOURNAL_STREAM", "1:1", 1);
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_int_equal(c.watchdog_usec, 0);
    assert_false(c.journal_stream);
    config_free(&c);
    unsetenv("WATCHDOG_PID");
    setenv("WATCHDOG_USEC", "soon", 1);
    assert_true(LOAD(&c, &st, "serve", "m"));
    assert_int_equal(c.watchdog_usec, 0);
    config_free(&c);
    unsetenv("WATCHDOG_USEC");
    unsetenv("NOTIFY_SOCKET");
    unsetenv("JOURNAL_STREAM");
}

/* The environment of whoever runs the tests must not decide them. */
static int clear_environment(void)
{
    static const char *const others[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                          "JOURNAL_STREAM" };
    for (int i = 0; environ[i];) {
        char name[256];
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(environ[i], "="), environ[i]);
        if (strncmp(name, "INFERD_", 7) != 0)
            i++;
        else if (unsetenv(name) != 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        unsetenv(others[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_defaults_are_in_range),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_argument_forms),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_file_values),
        cmocka_unit_test(test_refused_on_the_command_line),
        cmocka_unit_test(test_refused_together),
        cmocka_unit_test(test_refused_in_the_environment),
        cmocka_unit_test(test_refused_in_the_file),
        cmocka_unit_test(test_large_file),
        cmocka_unit_test(test_fifo_does_not_hang),
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_supervisor),
    };
    if (clear_environment() != 0)
        return 1;
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
