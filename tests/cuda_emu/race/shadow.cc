/* shadow.cc - cells in pages, found by the address, and the kinds of memory. */
#include "tests/cuda_emu/race/shadow.h"
#include "tests/cuda_emu/emu_control.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <link.h>
#include <unordered_map>
#include <vector>

enum {
    PAGE_WORDS = 1024,
    NEAR_PAGES = 256,  /* found without a search */
    KEPT_PAGES = 4096, /* 256 MiB from one grid to the next */
};

/* Where the linker put what is marked EMU_OWN. */
extern "C" __attribute__((visibility("hidden"))) char __start_emu_own[], __stop_emu_own[];

namespace
{

struct page {
    struct cell cells[PAGE_WORDS];
};
struct range {
    uintptr_t begin, end;
    bool holds(uintptr_t at) const
    {
        return at - begin < end - begin;
    }
};
struct near_page {
    uintptr_t number;
    page *at;
};

std::unordered_map<uintptr_t, page *> pages;
near_page near_pages[NEAR_PAGES];
std::deque<event[2]> atomics;
std::deque<cell[4]> bytes;
uint32_t grid;
range device, statics, own;
std::vector<range> pinned; /* rising */

/* The library's variables: those of its kernels are __shared__. */
int find_statics(struct dl_phdr_info *info, size_t, void *)
{
    const uintptr_t here = (uintptr_t)__start_emu_own - info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || here - p->p_vaddr >= p->p_memsz)
            continue;
        statics = { info->dlpi_addr + p->p_vaddr, info->dlpi_addr + p->p_vaddr + p->p_memsz };
        return 1;
    }
    return 0;
}

void drop_pages()
{
    for (auto &p : pages)
        free(p.second);
    pages.clear();
    memset(near_pages, 0, sizeof near_pages);
}

} // namespace

void shadow_begin_grid(void)
{
    if (statics.end == 0) {
        dl_iterate_phdr(find_statics, nullptr);
        own = { (uintptr_t)__start_emu_own, (uintptr_t)__stop_emu_own };
    }
    if (pages.size() > KEPT_PAGES)
        drop_pages();
    grid++;
    atomics.clear();
    bytes.clear();
    pinned.clear();
    emu_get_memory(
        [](void *, int is_device, const char *begin, size_t size) {
            const range r = { (uintptr_t)begin, (uintptr_t)begin + size };
            if (is_device)
                device = r;
            else
                pinned.push_back(r);
        },
        nullptr);
}

enum space shadow_space(const void *memory)
{
    const uintptr_t at = (uintptr_t)memory;
    if (device.holds(at))
        return SPACE_GLOBAL;
    if (statics.holds(at))
        return own.holds(at) ? SPACE_NONE : SPACE_SHARED;
    auto after = std::upper_bound(pinned.begin(), pinned.end(), at,
                                  [](uintptr_t x, const range &r) { return x < r.begin; });
    return after != pinned.begin() && (after - 1)->holds(at) ? SPACE_GLOBAL : SPACE_NONE;
}

struct cell *shadow_cell(uintptr_t word)
{
    const uintptr_t number = word / PAGE_WORDS;
    near_page *n = &near_pages[number % NEAR_PAGES];
    if (!n->at || n->number != number) {
        page *&p = pages[number];
        if (!p)
            p = (page *)calloc(1, sizeof *p);
        if (!p)
            emu_die("no memory for the race detector");
        *n = { number, p };
    }
    struct cell *c = &n->at->cells[word % PAGE_WORDS];
    if (c->grid != grid) {
        memset(c, 0, sizeof *c);
        c->grid = grid;
    }
    return c;
}

struct cell *shadow_bytes(struct cell *c)
{
    if (c->bytes == 0) {
        bytes.emplace_back();
        for (cell &b : bytes.back()) {
            b = *c;
            b.atomics = 0;
            if (c->atomics > 0)
                memcpy(shadow_atomics(&b), shadow_atomics(c), 2 * sizeof(event));
        }
        c->bytes = (uint32_t)bytes.size();
    }
    return bytes[c->bytes - 1];
}

struct event *shadow_atomics(struct cell *c)
{
    if (c->atomics == 0) {
        atomics.emplace_back();
        memset(&atomics.back(), 0, sizeof atomics.back());
        c->atomics = (uint32_t)atomics.size();
    }
    return atomics[c->atomics - 1];
}
