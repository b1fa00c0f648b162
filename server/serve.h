/* serve.h - `inferd serve`: from the stages up, over signals, to the stages down. */
#ifndef INFERD_SERVER_SERVE_H
#define INFERD_SERVER_SERVE_H

#include "config/config.h"

/* Returns the process's exit code: 0 after an orderly end, 1 where the start or the engine failed.
 * Main thread; it blocks the signals it waits for. */
int serve_run(const struct config *config);

#endif
