/* copies.cc - asynchronous copies that are under way until their thread waits for them. What is
 * there before is rubbish, as nothing says when the bytes arrive. */
#include "tests/cuda_emu/race.h"
#include "tests/cuda_emu/race/race_access.h"

#include <deque>
#include <vector>

enum { COPY_BYTES = 16 };

namespace
{

struct copy {
    void *to;
    const void *from, *pc;
    unsigned char bytes[COPY_BYTES]; /* as they were when it began */
};
struct thread_copies {
    std::vector<copy> begun;                 /* in no group yet */
    std::deque<std::vector<copy>> under_way; /* groups, the oldest first */
};

thread_copies threads[EMU_MAX_THREADS];
bool any; /* there are copies in some thread */

void end_copy(const copy &c)
{
    if (c.from && memcmp(c.from, c.bytes, COPY_BYTES) != 0)
        race_source_changed(c.from, c.pc);
    memcpy(c.to, c.bytes, COPY_BYTES);
    race_copy_ends(c.to, c.pc);
}

} // namespace

void race_drop_copies(void)
{
    for (unsigned int i = 0; any && i < EMU_MAX_THREADS; i++) {
        threads[i].begun.clear();
        threads[i].under_way.clear();
    }
    any = false;
}

void emu_race_copy_async(void *to, const void *from, const void *pc)
{
    copy c = { to, from, pc, {} };
    if (from) {
        emu_race_read(from, COPY_BYTES, pc);
        memcpy(c.bytes, from, COPY_BYTES);
    }
    race_copy_begins(to, pc);
    memset(to, 0xff, COPY_BYTES);
    threads[emu_self->linear].begun.push_back(c);
    any = true;
}

void emu_race_commit_copies(void)
{
    thread_copies *t = &threads[emu_self->linear];
    t->under_way.push_back(std::move(t->begun));
    t->begun.clear();
    any = true;
}

void emu_race_wait_for_copies(unsigned int groups_under_way)
{
    thread_copies *t = &threads[emu_self->linear];
    for (; t->under_way.size() > groups_under_way; t->under_way.pop_front())
        for (const copy &c : t->under_way.front())
            end_copy(c);
}
