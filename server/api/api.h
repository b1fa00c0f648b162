/* api.h - the handlers of all endpoints; each answers its exchange. See routes.c. */
#ifndef INFERD_SERVER_API_API_H
#define INFERD_SERVER_API_API_H

#include "server/http.h"

void api_completions(struct exchange *x);
void api_chat_completions(struct exchange *x);
void api_models(struct exchange *x);
void api_model(struct exchange *x); /* /v1/models/{id} */
void api_tokenize(struct exchange *x);
void api_detokenize(struct exchange *x);
void api_apply_template(struct exchange *x);
void api_props(struct exchange *x);
void api_health(struct exchange *x);
void api_live(struct exchange *x);
void api_version(struct exchange *x);
void api_metrics(struct exchange *x);

#endif
