/* token_decoder.h - the "decoder" of tokenizer.json: pieces back to text, one piece at a time.
 *
 * A decoder is immutable once loaded and safe on any thread; a stream over it belongs to one. Each
 * stage hands on what can no longer change and holds back a bounded rest. */
#ifndef INFERD_ENGINE_TEXT_TOKEN_DECODER_H
#define INFERD_ENGINE_TEXT_TOKEN_DECODER_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>
#include <stddef.h>

struct token_decoder;
struct token_decoder_stream;

/* `spec` is the JSON value; null gives a decoder that joins pieces with spaces, as the library
 * does. A component that is not known, or that cannot follow the one before it, is an error that
 * names it. */
bool token_decoder_load(const json_t *spec, struct token_decoder **out, struct status *st);
void token_decoder_free(struct token_decoder *d);

/* `exact`: a row of byte pieces that is not UTF-8 as a whole becomes one U+FFFD per byte, as in the
 * library; for that the whole row is held back. Otherwise the row's characters leave one by one,
 * and only bytes that form none become U+FFFD. */
struct token_decoder_stream *token_decoder_stream_open(const struct token_decoder *d, bool exact);
void token_decoder_stream_push(struct token_decoder_stream *s, const char *piece, size_t len,
                               struct buf *out);
void token_decoder_stream_finish(struct token_decoder_stream *s, struct buf *out);
void token_decoder_stream_close(struct token_decoder_stream *s);

/* The bytes a piece stands for in running text, which need not be UTF-8. */
void token_decoder_piece_bytes(const struct token_decoder *d, const char *piece, size_t len,
                               struct buf *out);

#endif
