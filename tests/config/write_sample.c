/* write_sample.c - prints the sample configuration file; `make sample` puts it into config/. */
#include "config/config.h"
#include <stdio.h>

int main(void)
{
    struct buf text;
    buf_init(&text, 0);
    config_sample_json(&text);
    bool ok = fputs(buf_str(&text), stdout) >= 0 && fflush(stdout) == 0;
    buf_free(&text);
    return ok ? 0 : 1;
}
