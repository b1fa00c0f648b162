// sentencepiece_shim.cc - libsentencepiece behind C functions; every exception ends here.
#include "engine/text/sentencepiece_shim.h"

#include <exception>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

static bool failed(struct status *st, const std::exception *e)
{
    return status_set(st, STATUS_INTERNAL, "libsentencepiece failed: %s",
                      e ? e->what() : "an unknown exception");
}

bool spm_load(const char *data, size_t len, struct spm **out, struct status *st)
{
    *out = nullptr;
    spm *s = nullptr;
    try {
        s = new spm;
        auto result = s->processor.LoadFromSerializedProto(absl::string_view(data, len));
        if (result.ok()) {
            *out = s;
            return true;
        }
        status_set(st, STATUS_INVALID, "libsentencepiece refuses it: %s",
                   result.ToString().c_str());
    } catch (const std::exception &e) {
        failed(st, &e);
    } catch (...) {
        failed(st, nullptr);
    }
    delete s;
    return false;
}

void spm_free(struct spm *s)
{
    delete s;
}

int32_t spm_num_pieces(const struct spm *s)
{
    return s->processor.GetPieceSize();
}

const char *spm_piece(const struct spm *s, int32_t id, size_t *len, enum spm_piece_kind *kind)
{
    const std::string &piece = s->processor.IdToPiece(id);
    *len = piece.size();
    *kind = s->processor.IsByte(id)      ? SPM_BYTE
            : s->processor.IsControl(id) ? SPM_CONTROL
            : s->processor.IsUnknown(id) ? SPM_UNKNOWN
                                         : SPM_NORMAL;
    return piece.c_str();
}

bool spm_encode(const struct spm *s, const char *text, size_t len,
                void (*emit)(void *context, int32_t id), void *context, struct status *st)
{
    try {
        std::vector<int> ids;
        auto result = s->processor.Encode(absl::string_view(text, len), &ids);
        if (!result.ok())
            return status_set(st, STATUS_INTERNAL, "libsentencepiece cannot encode the text: %s",
                              result.ToString().c_str());
        for (int id : ids)
            emit(context, id);
        return true;
    } catch (const std::exception &e) {
        return failed(st, &e);
    } catch (...) {
        return failed(st, nullptr);
    }
}
