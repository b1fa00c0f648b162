/* write_models_table.c - prints engine/model/README.md, read from standard input, with its table of
 * architectures as the code has it; `make models-table` puts it into its place. */
#include "engine/model/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char begin_mark[] = "<!-- model_archs: begin -->\n";
static const char end_mark[] = "<!-- model_archs: end -->\n";

int main(void)
{
    static char text[1 << 18];
    size_t len = fread(text, 1, sizeof text - 1, stdin);
    char *begin = strstr(text, begin_mark), *end = strstr(text, end_mark);
    struct buf table;
    if (len == sizeof text - 1 || !begin || !end || end < begin) {
        fprintf(stderr, "standard input is no README with a table between %s and %s\n", begin_mark,
                end_mark);
        return 1;
    }
    buf_init(&table, 0);
    model_arch_table(&table);
    begin += strlen(begin_mark);
    bool ok = printf("%.*s%s%s", (int)(begin - text), text, buf_str(&table), end) >= 0 &&
              fflush(stdout) == 0;
    buf_free(&table);
    return ok ? 0 : 1;
}
