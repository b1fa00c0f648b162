/* pull.h - `inferd pull`: brings a model of the hub to this machine and prints where it is. */
#ifndef INFERD_SERVER_PULL_H
#define INFERD_SERVER_PULL_H

#include "config/config.h"

/* The process's exit code. */
int pull_run(const struct config *config);

#endif
