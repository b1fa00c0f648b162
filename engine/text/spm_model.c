/* spm_model.c - a protobuf walker for the few fields that matter (sentencepiece_model.proto). */
#include "engine/text/spm_model.h"
#include "engine/text/charsmap.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct reader {
    const unsigned char *p, *end;
};

/* One field: a number, or bytes. */
struct field {
    uint32_t number, wire;
    uint64_t value;
    const unsigned char *data; /* wire type 2 */
    size_t len;
};

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static bool read_varint(struct reader *r, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end)
            return false;
        unsigned char b = *r->p++;
        *value |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return true;
    }
    return false;
}

static bool skip(struct reader *r, size_t n)
{
    if ((size_t)(r->end - r->p) < n)
        return false;
    r->p += n;
    return true;
}

static bool read_field(struct reader *r, struct field *f)
{
    uint64_t tag;
    if (!read_varint(r, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return false;
    *f = (struct field){ .number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7) };
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_FIXED64:
        return skip(r, 8);
    case WIRE_FIXED32:
        return skip(r, 4);
    case WIRE_BYTES:
        if (!read_varint(r, &f->value) || f->value > (size_t)(r->end - r->p))
            return false;
        f->data = r->p;
        f->len = (size_t)f->value;
        return skip(r, f->len);
    default:
        return false;
    }
}

static bool broken(struct status *st)
{
    return status_set(st, STATUS_INVALID, "not a SentencePiece model, or a truncated one");
}

static bool check_charsmap(const struct field *f, struct status *st)
{
    struct charsmap map;
    if (f->len == 0)
        return true;
    if (!charsmap_load(&map, (const char *)f->data, f->len, st))
        return false;
    charsmap_free(&map);
    return true;
}

/* NormalizerSpec: 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces. */
static bool read_normalizer(const struct field *spec, struct spm_model_info *info,
                            struct status *st)
{
    struct reader r = { spec->data, spec->data + spec->len };
    struct field f;
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return broken(st);
        if (f.number == 2 && f.wire == WIRE_BYTES && !check_charsmap(&f, st))
            return false;
        if (f.number == 3 && f.wire == WIRE_VARINT)
            info->add_dummy_prefix = f.value != 0;
        if (f.number == 4 && f.wire == WIRE_VARINT)
            info->remove_extra_whitespaces = f.value != 0;
    }
    return true;
}

static bool read_denormalizer(const struct field *spec, struct status *st)
{
    struct reader r = { spec->data, spec->data + spec->len };
    struct field f;
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return broken(st);
        if (f.number == 2 && f.len > 0)
            return status_set(st, STATUS_UNSUPPORTED,
                              "the model rewrites decoded text (denormalizer_spec), which is not "
                              "supported");
    }
    return true;
}

/* TrainerSpec: 24 treat_whitespace_as_suffix, 44 unk_surface. */
static bool read_trainer(const struct field *spec, struct spm_model_info *info, struct status *st)
{
    struct reader r = { spec->data, spec->data + spec->len };
    struct field f;
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return broken(st);
        if (f.number == 24 && f.wire == WIRE_VARINT && f.value != 0)
            return status_set(st, STATUS_UNSUPPORTED,
                              "the model writes spaces behind words (treat_whitespace_as_suffix), "
                              "which is not supported");
        if (f.number == 44 && f.wire == WIRE_BYTES) {
            if (f.len >= SPM_MAX_SURFACE)
                return status_set(st, STATUS_UNSUPPORTED, "unk_surface is longer than %d bytes",
                                  SPM_MAX_SURFACE - 1);
            memset(info->unk_surface, 0, sizeof info->unk_surface);
            memcpy(info->unk_surface, f.data, f.len);
        }
    }
    return true;
}

bool spm_model_check(const char *data, size_t len, struct spm_model_info *info, struct status *st)
{
    struct reader r = { (const unsigned char *)data, (const unsigned char *)data + len };
    struct field f;
    bool has_pieces = false;
    *info = (struct spm_model_info){ .add_dummy_prefix = true, .remove_extra_whitespaces = true };
    snprintf(info->unk_surface, sizeof info->unk_surface, " \xE2\x81\x87 ");
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return broken(st);
        if (f.wire != WIRE_BYTES)
            continue;
        /* ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec, 5 denormalizer_spec. */
        has_pieces |= f.number == 1;
        if (f.number == 2 && !read_trainer(&f, info, st))
            return false;
        if (f.number == 3 && !read_normalizer(&f, info, st))
            return false;
        if (f.number == 5 && !read_denormalizer(&f, st))
            return false;
    }
    return has_pieces || broken(st);
}
