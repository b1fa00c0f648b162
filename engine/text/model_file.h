/* model_file.h - reads the small files beside a model: whole, bounded, and named in every error. */
#ifndef INFERD_ENGINE_TEXT_MODEL_FILE_H
#define INFERD_ENGINE_TEXT_MODEL_FILE_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>

/* Reads dir/name into `out`. STATUS_NOT_FOUND where it does not exist; every other failure, a
 * directory or a file over `max_bytes` included, is an error that names the path. */
bool model_file_read(const char *dir, const char *name, size_t max_bytes, struct buf *out,
                     struct status *st);
/* The same, parsed; *out is a JSON object that the caller releases with json_decref. Strings may
 * hold NUL bytes. Where an integer leaves 64 bits, every integer of the file is given as a real. */
bool model_file_read_json(const char *dir, const char *name, size_t max_bytes, json_t **out,
                          struct status *st);

#endif
