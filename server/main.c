/* main.c - the command line's commands and the exit code. */
#include "base/log.h"
#include "config/config.h"
#include "server/bench.h"
#include "server/plan.h"
#include "server/pull.h"
#include "server/serve.h"

#include <stdio.h>
#include <string.h>

static enum log_level level_named(const char *name)
{
    static const char *const names[] = { "debug", "info", "warning", "error", "off" };
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return (enum log_level)i;
    return LOG_LEVEL_INFO; /* config_load lets no other name through */
}

static int print_help(void)
{
    struct buf text;
    buf_init(&text, 0);
    config_help(&text);
    fputs(buf_str(&text), stdout);
    buf_free(&text);
    return 0;
}

static int run_command(const struct config *config)
{
    switch (config->command) {
    case COMMAND_SERVE:
        return serve_run(config);
    case COMMAND_PLAN:
        return plan_run(config);
    case COMMAND_BENCH:
        return bench_run(config);
    case COMMAND_PULL:
        return pull_run(config);
    case COMMAND_HELP:
        return print_help();
    case COMMAND_VERSION:
        printf("inferd %s\n", INFERD_VERSION);
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct config config;
    struct status st;
    if (!config_load(argc, argv, &config, &st)) {
        fprintf(stderr, "inferd: %s\n", st.message);
        return 1;
    }
    log_init(level_named(config.log_level), config.journal_stream);
    int code = run_command(&config);
    config_free(&config);
    return code;
}
