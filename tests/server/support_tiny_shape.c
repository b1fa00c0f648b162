/* support_tiny_shape.c - see the header. */
#include "tests/server/support_tiny_shape.h"
#include "base/alloc.h"
#include "base/log.h"
#include "config/config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WORDS = 24, MAX_OUTPUT = 1 << 16 };

static char directory[64], file[96];

static const char config_json[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": "
    "\"silu\","
    " \"torch_dtype\": \"float32\", \"rms_norm_eps\": 1e-05, \"vocab_size\": 96,"
    " \"rope_theta\": 10000.0, \"max_position_embeddings\": 256, \"bos_token_id\": 1,"
    " \"eos_token_id\": 2, \"hidden_size\": 32, \"intermediate_size\": 64,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"tie_word_embeddings\": false}";

int tiny_shape_setup(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/inferd-shape-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(file, sizeof(file), "%s/config.json", directory);
    FILE *f = fopen(file, "w");
    if (!f)
        return -1;
    fputs(config_json, f);
    log_init(LOG_LEVEL_OFF, false);
    return fclose(f);
}

int tiny_shape_teardown(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(directory);
}

const char *tiny_shape_path(void)
{
    return directory;
}

int tiny_shape_run(int (*run)(const struct config *), const char *const *words, char **output)
{
    char *argv[MAX_WORDS + 1] = { (char *)"inferd" };
    int argc = 1;
    for (; words[argc - 1] && argc < MAX_WORDS; argc++)
        argv[argc] = (char *)words[argc - 1];
    struct config config;
    struct status st;
    *output = NULL;
    if (!config_load(argc, argv, &config, &st)) {
        fprintf(stderr, "%s\n", st.message);
        return -1;
    }
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    FILE *capture = tmpfile();
    if (saved < 0 || !capture || dup2(fileno(capture), STDOUT_FILENO) < 0)
        abort();
    int exit_code = run(&config);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    *output = xcalloc(1, MAX_OUTPUT);
    rewind(capture);
    size_t n = fread(*output, 1, MAX_OUTPUT - 1, capture);
    (*output)[n] = '\0';
    fclose(capture);
    config_free(&config);
    return exit_code;
}
