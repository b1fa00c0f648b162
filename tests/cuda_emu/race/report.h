/* report.h - what the race detector has found, in words and places of the source. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_REPORT_H
#define INFERD_TESTS_CUDA_EMU_RACE_REPORT_H

#include "tests/cuda_emu/race/history.h"
#include "tests/cuda_emu/race_control.h"

#include <cstddef>
#include <map>
#include <string>
#include <vector>

struct finding {
    enum emu_hazard hazard;
    const char *does;       /* what the current thread does: "writes" */
    const char *did;        /* what the other one did; NULL: there is no other */
    struct event now, then; /* `then` is without meaning where there is no other */
    const void *at;
    bool is_shared;
};

/* Of a place in a kernel, a return address; so one that is 0 is no place. */
uint32_t report_place(const void *pc);
/* The kernel that each of these is in, and the line of the source that is meant: not one of the
 * functions that stand in for instructions. */
std::map<uint32_t, std::pair<std::string, std::string>> report_lines(
    const std::vector<uint32_t> &places);
void report_finding(const struct finding *f);
/* Ends the program where something was found and nobody listens. */
void report_end_grid(void);

#endif
