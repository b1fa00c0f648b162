/* build_id.h - which build this program is: what the linker noted about its content. */
#ifndef INFERD_BASE_BUILD_ID_H
#define INFERD_BASE_BUILD_ID_H

#include <stddef.h>

/* The bytes of the program's build id (ELF note NT_GNU_BUILD_ID) and how many there are; NULL and 0
 * where the linker wrote none. Any thread. */
const unsigned char *build_id(size_t *len);

#endif
