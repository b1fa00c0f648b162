/* plan.h - `inferd plan`: the memory plan that `inferd serve` would make, without loading weights.
 */
#ifndef INFERD_SERVER_PLAN_H
#define INFERD_SERVER_PLAN_H

#include "config/config.h"

/* Prints the plan to standard output, a table or JSON; returns the process's exit code. */
int plan_run(const struct config *config);

#endif
