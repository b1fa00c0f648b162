/* profile.cc - accesses of lanes become instructions of warps, and these a table. */
#include "tests/cuda_emu/race/profile.h"
#include "tests/cuda_emu/race/report.h"
#include "tests/cuda_emu/race_control.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <tuple>
#include <vector>

enum { SECTOR_BYTES = 32, BANKS = 32, WORD_BYTES = 4, VECTOR_BYTES = 16, PIECES_APART = 64 };

namespace
{

struct lane_access {
    uint32_t place, last_place; /* of the last piece that it was put together of */
    uint32_t nth;               /* how often the lane has been there since the last flush */
    unsigned int lane;
    bool writes;
    enum space space;
    uintptr_t at;
    size_t bytes;
};
struct key {
    uint32_t place;
    bool writes;
    enum space space;
    bool operator<(const key &o) const
    {
        return std::tie(place, writes, space) < std::tie(o.place, o.writes, o.space);
    }
};
struct cost {
    uint64_t warps, lanes, bytes;
    uint64_t units, least; /* sectors or wavefronts; as few as the same bytes can be */
};
struct line_cost {
    std::string kernel, line;
    bool writes, shared;
    struct cost cost;
};

std::vector<lane_access> pending[EMU_MAX_THREADS];
std::map<key, cost> &costs = *new std::map<key, cost>; /* there to the very end */

/* The compiler copies a vector in pieces: those of one lane that follow each other, in memory and
 * in the program, are one access of it. */
bool continues(const lane_access &last, const lane_access &next)
{
    const size_t whole = last.bytes + next.bytes;
    return last.writes == next.writes && last.space == next.space &&
           next.place - last.last_place - 1 < PIECES_APART && next.at == last.at + last.bytes &&
           whole <= VECTOR_BYTES &&
           last.at / VECTOR_BYTES == (last.at + whole - 1) / VECTOR_BYTES &&
           last.bytes >= WORD_BYTES;
}

uint64_t units_in(const std::vector<lane_access> &lanes, size_t unit)
{
    std::vector<uintptr_t> all;
    for (const lane_access &a : lanes)
        for (uintptr_t u = a.at / unit; u <= (a.at + a.bytes - 1) / unit; u++)
            all.push_back(u);
    std::sort(all.begin(), all.end());
    return (uint64_t)(std::unique(all.begin(), all.end()) - all.begin());
}

/* Of lanes that are served together: as many as the busiest bank has words. */
uint64_t wavefronts(const std::vector<lane_access> &lanes)
{
    std::vector<uintptr_t> words;
    uint64_t of_bank[BANKS] = {}, most = 0;
    for (const lane_access &a : lanes)
        for (uintptr_t w = a.at / WORD_BYTES; w <= (a.at + a.bytes - 1) / WORD_BYTES; w++)
            words.push_back(w);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    for (uintptr_t w : words)
        most = std::max(most, ++of_bank[w % BANKS]);
    return most;
}

void add_instruction(const std::vector<lane_access> &lanes)
{
    const lane_access &first = lanes.front();
    cost *c = &costs[{ first.place, first.writes, first.space }];
    size_t bytes = 0;
    for (const lane_access &a : lanes)
        bytes = std::max(bytes, a.bytes);
    c->warps++;
    c->lanes += lanes.size();
    for (const lane_access &a : lanes)
        c->bytes += a.bytes;
    if (first.space == SPACE_GLOBAL) {
        c->units += units_in(lanes, SECTOR_BYTES);
        c->least += (units_in(lanes, 1) + SECTOR_BYTES - 1) / SECTOR_BYTES;
        return;
    }
    const unsigned int together = EMU_WARP / (bytes > 8 ? 4 : bytes > 4 ? 2 : 1);
    std::vector<lane_access> served;
    for (unsigned int begin = 0; begin < EMU_WARP; begin += together) {
        served.clear();
        for (const lane_access &a : lanes)
            if (a.lane / together == begin / together)
                served.push_back(a);
        c->units += wavefronts(served);
        c->least += !served.empty();
    }
}

std::vector<uint32_t> places()
{
    std::vector<uint32_t> all;
    for (const auto &c : costs)
        if (all.empty() || all.back() != c.first.place)
            all.push_back(c.first.place);
    return all;
}

/* The same line may be several places. */
std::vector<line_cost> by_line()
{
    std::map<std::tuple<std::string, std::string, bool, bool>, cost> sums;
    std::map<uint32_t, std::pair<std::string, std::string>> lines = report_lines(places());
    for (const auto &c : costs) {
        const auto &line = lines[c.first.place];
        cost *sum =
            &sums[{ line.first, line.second, c.first.writes, c.first.space == SPACE_SHARED }];
        sum->warps += c.second.warps;
        sum->lanes += c.second.lanes;
        sum->bytes += c.second.bytes;
        sum->units += c.second.units;
        sum->least += c.second.least;
    }
    std::vector<line_cost> all;
    for (const auto &s : sums)
        all.push_back({ std::get<0>(s.first), std::get<1>(s.first), std::get<2>(s.first),
                        std::get<3>(s.first), s.second });
    return all;
}

void print_table(const char *path)
{
    FILE *out = fopen(path, "a");
    if (!out)
        emu_die("%s cannot be written", path);
    fprintf(out, "kernel\tline\taccess\twarp_accesses\tlanes\tbytes\tunits\tleast\n");
    for (const line_cost &l : by_line())
        fprintf(out, "%s\t%s\t%s of %s\t%llu\t%.1f\t%llu\t%llu\t%llu\n", l.kernel.c_str(),
                l.line.c_str(), l.writes ? "write" : "read", l.shared ? "shared" : "global",
                (unsigned long long)l.cost.warps, (double)l.cost.lanes / (double)l.cost.warps,
                (unsigned long long)l.cost.bytes, (unsigned long long)l.cost.units,
                (unsigned long long)l.cost.least);
    fclose(out);
}

const char *const wanted = getenv("EMU_PROFILE");

__attribute__((destructor)) void print_at_end()
{
    if (wanted)
        print_table(wanted);
}

} // namespace

bool profile_is_on = wanted != nullptr;

extern "C" void emu_profile_begin(void)
{
    costs.clear();
    profile_is_on = true;
}

extern "C" void emu_profile_end(const char *path)
{
    print_table(path);
    profile_is_on = false;
}

void profile_access(bool writes, enum space space, const void *at, size_t bytes, const void *pc)
{
    std::vector<lane_access> *mine = &pending[emu_self->linear];
    const uint32_t place = report_place(pc);
    const lane_access a = { place, place,         0,    emu_self->linear % EMU_WARP, writes,
                            space, (uintptr_t)at, bytes };
    if (mine->empty() || !continues(mine->back(), a)) {
        mine->push_back(a);
        return;
    }
    mine->back().bytes += bytes;
    mine->back().last_place = place;
}

void profile_warp(unsigned int warp)
{
    std::vector<lane_access> all, lanes;
    for (unsigned int i = warp * EMU_WARP; i < (warp + 1) * EMU_WARP; i++) {
        std::map<uint32_t, uint32_t> times;
        for (lane_access &a : pending[i]) {
            a.nth = times[a.place]++;
            all.push_back(a);
        }
        pending[i].clear();
    }
    std::stable_sort(all.begin(), all.end(), [](const lane_access &a, const lane_access &b) {
        return std::tie(a.place, a.writes, a.space, a.nth) <
               std::tie(b.place, b.writes, b.space, b.nth);
    });
    for (size_t i = 0; i < all.size(); i++) {
        lanes.push_back(all[i]);
        if (i + 1 == all.size() || all[i + 1].place != all[i].place ||
            all[i + 1].writes != all[i].writes || all[i + 1].space != all[i].space ||
            all[i + 1].nth != all[i].nth) {
            add_instruction(lanes);
            lanes.clear();
        }
    }
}

void profile_all_warps(void)
{
    for (unsigned int warp = 0; warp < EMU_MAX_THREADS / EMU_WARP; warp++)
        profile_warp(warp);
}
