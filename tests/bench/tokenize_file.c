/* tokenize_file.c - a tokenizer on the command line, for measuring and for comparing.
 *
 *   tokenize_file MODEL_DIR FILE [REPEATS]   encodes the lines of FILE, one text each; prints the
 *                                            number of tokens and the best CPU time in seconds
 *   tokenize_file --lines MODEL_DIR          answers JSON lines on standard input:
 *     {"text": T, "add_special_tokens": B}                -> {"ids": [...]}
 *     {"ids": [...], "skip_special_tokens": B}            -> {"text": T}
 *     {"ids": [...], "skip_special_tokens": B, "prompt": N} -> {"text": the deltas joined}
 *
 * MODEL_DIR may also be a file that ends in ".json": the vocabulary of a GGUF file, as
 * tests/engine/text/gguf_fixture.h reads it. */
#include "tests/bench/cpu_clock.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/text/gguf_fixture.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *message)
{
    fprintf(stderr, "tokenize_file: %s\n", message);
    return 1;
}

static struct buf read_file(const char *path)
{
    struct buf data;
    buf_init(&data, 0);
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(&data, chunk, n);
    fclose(f);
    return data;
}

static int measure(const struct tokenizer *t, const char *path, int repeats)
{
    struct buf data = read_file(path);
    struct token_list list = { 0 };
    struct status st = { 0 };
    double best = 1e30;
    for (int r = 0; r < repeats; r++) {
        double start = clock_cpu_seconds();
        list.len = 0;
        for (size_t i = 0; i < data.len;) {
            const char *line = data.data + i, *end = memchr(line, '\n', data.len - i);
            size_t len = end ? (size_t)(end - line) : data.len - i;
            if (!tokenizer_encode(t, line, len, false, SIZE_MAX, &list, &st))
                return fail(st.message);
            i += len + 1;
        }
        double seconds = clock_cpu_seconds() - start;
        if (seconds < best)
            best = seconds;
    }
    printf("%zu %.6f\n", list.len, best);
    token_list_free(&list);
    buf_free(&data);
    return 0;
}

static json_t *answer_decode(const struct tokenizer *t, const json_t *request, const json_t *array)
{
    size_t count = json_array_size(array);
    int32_t *ids = calloc(count + 1, sizeof *ids);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    bool skip = json_is_true(json_object_get(request, "skip_special_tokens"));
    const json_t *prompt = json_object_get(request, "prompt");
    struct buf out;
    buf_init(&out, 0);
    if (prompt) {
        size_t n = (size_t)json_integer_value(prompt);
        struct detokenizer *d = detokenizer_new(t, ids, n, skip);
        for (size_t i = n; i < count; i++)
            detokenizer_push(d, ids[i], &out);
        detokenizer_finish(d, &out);
        detokenizer_free(d);
    } else {
        tokenizer_decode(t, ids, count, skip, &out);
    }
    json_t *reply = json_pack("{s:o}", "text", json_stringn(buf_str(&out), out.len));
    buf_free(&out);
    free(ids);
    return reply;
}

static json_t *answer(const struct tokenizer *t, const json_t *request)
{
    struct status st = { 0 };
    const json_t *ids = json_object_get(request, "ids");
    if (ids)
        return answer_decode(t, request, ids);
    const json_t *text = json_object_get(request, "text");
    struct token_list list = { 0 };
    json_t *reply;
    if (tokenizer_encode(t, json_string_value(text), json_string_length(text),
                         json_is_true(json_object_get(request, "add_special_tokens")), SIZE_MAX,
                         &list, &st)) {
        json_t *array = json_array();
        for (size_t i = 0; i < list.len; i++)
            json_array_append_new(array, json_integer(list.ids[i]));
        reply = json_pack("{s:o}", "ids", array);
    } else {
        reply = json_pack("{s:s}", "error", st.message);
    }
    token_list_free(&list);
    return reply;
}

static int serve(const struct tokenizer *t)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) > 0) {
        json_error_t error;
        json_t *request = json_loadb(line, (size_t)len, JSON_ALLOW_NUL, &error);
        if (!request)
            return fail(error.text);
        json_t *reply = answer(t, request);
        json_dumpf(reply, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(reply);
        json_decref(request);
    }
    free(line);
    return 0;
}

static bool load(const char *path, struct tokenizer **out, struct status *st)
{
    const char *end = strrchr(path, '.');
    if (!end || strcmp(end, ".json") != 0)
        return tokenizer_load(path, out, st);
    json_error_t error;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!root)
        return status_set(st, STATUS_INVALID, "%s: %s", path, error.text);
    struct gguf_fixture f;
    gguf_fixture_read(root, &f);
    bool ok = gguf_tokenizer_load(&f.vocab, out, st);
    gguf_fixture_free(&f);
    json_decref(root);
    return ok;
}

int main(int argc, char **argv)
{
    struct tokenizer *t;
    struct status st = { 0 };
    bool lines = argc == 3 && strcmp(argv[1], "--lines") == 0;
    if (!lines && argc != 3 && argc != 4)
        return fail("usage: tokenize_file MODEL_DIR FILE [REPEATS] | --lines MODEL_DIR");
    if (!load(lines ? argv[2] : argv[1], &t, &st))
        return fail(st.message);
    int rc = lines ? serve(t) : measure(t, argv[2], argc == 4 ? atoi(argv[3]) : 3);
    tokenizer_free(t);
    return rc;
}
