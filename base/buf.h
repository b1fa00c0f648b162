/* buf.h - a growing byte buffer with a ceiling.
 *
 * Always NUL-terminated once something was appended. Past `max_bytes` appends are dropped and
 * `overflow` is set, so that a hostile size is noticed once, at the end. One thread at a time. */
#ifndef INFERD_BASE_BUF_H
#define INFERD_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data;
    size_t len, cap;
    size_t max_bytes; /* 0: no ceiling */
    bool overflow;
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_str(struct buf *b, const char *text);
void buf_append_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list args);
void buf_clear(struct buf *b);            /* empties, keeps the memory */
const char *buf_str(const struct buf *b); /* never NULL */
char *buf_take(struct buf *b);            /* hands the malloc'ed text over; b is empty again */
void buf_free(struct buf *b);

#endif
