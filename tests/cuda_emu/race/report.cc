/* report.cc - findings become text; addr2line knows the lines, and what was inlined into what. */
#include "tests/cuda_emu/race/report.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <set>
#include <string>
#include <tuple>
#include <unistd.h>

enum { EXIT_FOUND = 66 };

namespace
{

std::set<std::tuple<int, uint32_t, uint32_t>> seen;
unsigned int num_printed;
void (*listener)(enum emu_hazard, const char *);

const Dl_info *library()
{
    static Dl_info info;
    if (!info.dli_fbase && !dladdr((void *)report_place, &info))
        emu_die("dladdr does not know this library");
    return &info;
}

__attribute__((format(printf, 2, 3))) void add(std::string *text, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    *text += line;
}

/* The function and line of a place, then those that it was inlined into, each on a line. */
void add_place(std::string *text, uint32_t place)
{
    char line[512];
    std::string command = "addr2line -ifCps -e '";
    command += library()->dli_fname;
    add(&command, "' 0x%x 2>&1", place - 1);
    FILE *lines = popen(command.c_str(), "r");
    if (!lines) {
        add(text, "      %s+0x%x\n", library()->dli_fname, place - 1);
        return;
    }
    while (fgets(line, sizeof line, lines))
        add(text, "      %s", line);
    pclose(lines);
}

void add_thread(std::string *text, const event *a, const char *what)
{
    add(text, "    thread %u of block %lu %s\n", (unsigned)a->thread, history_block_of(a->run),
        what);
    add_place(text, a->place);
}

const char *sentence(enum emu_hazard hazard)
{
    switch (hazard) {
    case EMU_RACE_IN_BLOCK:
        return "nothing orders two threads of a block";
    case EMU_RACE_AROUND_EXCHANGE:
        return "two lanes are ordered by a warp operation that promises nothing about memory";
    case EMU_RACE_BETWEEN_BLOCKS:
        return "nothing orders two blocks";
    case EMU_RACE_WITH_COPY:
        return "an asynchronous copy has not been waited for";
    case EMU_READ_OF_NOTHING:
        return "a block reads shared memory that it has not written";
    }
    return "";
}

/* Who lets a program go on in spite of what it does, wants its end to tell. */
__attribute__((destructor)) void fail_late()
{
    if (num_printed > 0)
        _exit(EXIT_FOUND);
}

} // namespace

uint32_t report_place(const void *pc)
{
    static const uintptr_t begin = (uintptr_t)library()->dli_fbase;
    return (uint32_t)((uintptr_t)pc - begin);
}

/* "f(...) at file:12 (discriminator 3)" */
static std::pair<std::string, std::string> function_and_line(std::string text)
{
    text = text.substr(0, text.find(" (discriminator"));
    const size_t at = text.rfind(" at ");
    if (at == std::string::npos)
        return { text, "?" };
    std::string function = text.substr(0, text.rfind('(', at));
    if (function.compare(0, 5, "void ") == 0)
        function = function.substr(5);
    return { function, text.substr(at + 4, text.find_first_of("\n", at) - at - 4) };
}

std::map<uint32_t, std::pair<std::string, std::string>> report_lines(
    const std::vector<uint32_t> &places)
{
    std::map<uint32_t, std::pair<std::string, std::string>> all;
    const char *const inlined = " (inlined by) ";
    for (size_t begin = 0; begin < places.size(); begin += 200) {
        std::string command = "addr2line -aifCps -e '";
        command += library()->dli_fname;
        command += "'";
        for (size_t i = begin; i < places.size() && i < begin + 200; i++)
            add(&command, " 0x%x", places[i] - 1);
        FILE *lines = popen(command.c_str(), "r");
        char line[4096];
        uint32_t place = 0;
        while (lines && fgets(line, sizeof line, lines)) {
            std::string text = line;
            if (text.compare(0, 2, "0x") == 0) {
                place = (uint32_t)strtoul(line, nullptr, 16) + 1;
                text = text.substr(text.find(": ") + 2);
            } else if (text.compare(0, strlen(inlined), inlined) == 0) {
                text = text.substr(strlen(inlined));
            }
            const auto here = function_and_line(text);
            auto *known = &all[place];
            if (known->second.empty() || known->second.compare(0, 12, "cuda_runtime") == 0)
                known->second = here.second;
            known->first = here.first; /* the last one is the kernel */
        }
        if (lines)
            pclose(lines);
    }
    return all;
}

void report_finding(const struct finding *f)
{
    if (!seen.insert({ f->hazard, f->now.place, f->did ? f->then.place : 0 }).second)
        return;
    std::string text;
    add(&text, "cuda_emu: %s, in %s memory at %p\n", sentence(f->hazard),
        f->is_shared ? "shared" : "global", f->at);
    add_thread(&text, &f->now, f->does);
    if (f->did)
        add_thread(&text, &f->then, f->did);
    if (listener) {
        listener(f->hazard, text.c_str());
        return;
    }
    fputs(text.c_str(), stderr);
    num_printed++;
}

void report_end_grid(void)
{
    if (num_printed > 0 && !getenv("EMU_RACE_GO_ON"))
        emu_die("%u hazards in a kernel", num_printed);
}

extern "C" void emu_race_set_listener(void (*found)(enum emu_hazard, const char *))
{
    seen.clear();
    listener = found;
}
