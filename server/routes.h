/* routes.h - the table of endpoints, and what happens around every one of them: CORS, keys,
 * readiness, 404 and 405, request ids, the access log. */
#ifndef INFERD_SERVER_ROUTES_H
#define INFERD_SERVER_ROUTES_H

#include "server/http.h"

/* The callbacks for struct http_options; x->app is the struct server. */
void routes_screen(struct exchange *x);
void routes_handle(struct exchange *x);
void routes_completed(struct exchange *x);

#endif
