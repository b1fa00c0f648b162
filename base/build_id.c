/* build_id.c - the notes of the program's own image. */
#include "base/build_id.h"

#include <elf.h>
#include <link.h>
#include <string.h>

struct search {
    const unsigned char *id;
    size_t len;
};

static size_t padded(size_t size)
{
    return (size + 3) / 4 * 4;
}

static void search_notes(struct search *s, const unsigned char *at, size_t size)
{
    while (!s->id && size >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        memcpy(&note, at, sizeof note);
        size_t name = sizeof note, desc = name + padded(note.n_namesz);
        size_t whole = desc + padded(note.n_descsz);
        if (whole > size)
            return;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof "GNU" &&
            memcmp(at + name, "GNU", sizeof "GNU") == 0) {
            s->id = at + desc;
            s->len = note.n_descsz;
        }
        at += whole;
        size -= whole;
    }
}

/* The program itself comes first. */
static int search_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_NOTE)
            search_notes(arg, (const unsigned char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr,
                         info->dlpi_phdr[i].p_memsz);
    return 1;
}

const unsigned char *build_id(size_t *len)
{
    struct search s = { NULL, 0 };
    dl_iterate_phdr(search_program, &s);
    *len = s.len;
    return s.id;
}
