/* props.c - GET /props, llama-server's: what is served, with which defaults and chat template. Keys
 * that would say nothing true about this server are left out. */
#include "engine/sampling/sampling_params.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/api/api.h"
#include "server/json.h"
#include "server/server.h"

/* Under our own names, and under llama-server's where it has another. */
static void put_params(const struct sampling_params *p, struct json_writer *w)
{
    json_open_object(w);
#define SAMPLING_FLOAT(field, def, min, max, open)                                                 \
    json_key(w, #field);                                                                           \
    json_put_float(w, p->field);
#define SAMPLING_INT(field, def, min, max)                                                         \
    json_key(w, #field);                                                                           \
    json_put_int(w, p->field);
#define SAMPLING_BOOL(field, def)                                                                  \
    json_key(w, #field);                                                                           \
    json_put_bool(w, p->field);
#include "engine/sampling/sampling_params.def"
#undef SAMPLING_FLOAT
#undef SAMPLING_INT
#undef SAMPLING_BOOL
    json_key(w, "repeat_penalty");
    json_put_float(w, p->repetition_penalty);
    json_close_object(w);
}

static void put_settings(const struct engine_info *info, struct json_writer *w)
{
    json_key(w, "default_generation_settings");
    json_open_object(w);
    json_key(w, "n_ctx");
    json_put_int(w, info->max_model_len);
    json_key(w, "params");
    put_params(info->sampling_defaults, w);
    json_close_object(w);
}

/* A special token by its name in the template's variables, else by the tokenizer's id. */
static void put_token(const struct engine_info *info, const char *name, int32_t id,
                      struct json_writer *w)
{
    const char *text = info->chat_template ? chat_template_token(info->chat_template, name) : NULL;
    if (!text)
        text = tokenizer_id_to_piece(info->tokenizer, id);
    json_key(w, name);
    json_put_string(w, text ? text : "");
}

static void put_template(const struct engine_info *info, struct json_writer *w)
{
    const struct chat_template *t = info->chat_template;
    size_t len = 0, len_with_tools = 0;
    const char *text = t ? chat_template_text(t, false, &len) : "";
    const char *with_tools = t ? chat_template_text(t, true, &len_with_tools) : text;
    json_key(w, "chat_template");
    json_put_text(w, text, len);
    if (with_tools != text) {
        json_key(w, "chat_template_tool_use");
        json_put_text(w, with_tools, len_with_tools);
    }
}

void api_props(struct exchange *x)
{
    const struct server *s = x->app;
    const struct engine_info *info = engine_info(s->engine);
    struct buf out;
    struct json_writer w;
    buf_init(&out, 0);
    json_writer_init(&w, &out);
    json_open_object(&w);
    put_settings(info, &w);
    json_key(&w, "total_slots");
    json_put_int(&w, s->config->max_num_seqs);
    json_key(&w, "model_alias");
    json_put_string(&w, s->names[0]);
    json_key(&w, "model_path");
    json_put_string(&w, info->model_path);
    json_key(&w, "modalities");
    json_open_object(&w);
    json_key(&w, "vision");
    json_put_bool(&w, false);
    json_key(&w, "audio");
    json_put_bool(&w, false);
    json_close_object(&w);
    put_template(info, &w);
    put_token(info, "bos_token", tokenizer_bos_id(info->tokenizer), &w);
    put_token(info, "eos_token", tokenizer_eos_id(info->tokenizer), &w);
    json_key(&w, "build_info");
    json_put_string(&w, "inferd " INFERD_VERSION);
    json_close_object(&w);
    exchange_respond(x, 200, "application/json", &out);
}
