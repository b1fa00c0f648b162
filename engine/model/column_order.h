/* column_order.h - the columns of linears whose rows come in an order of their own (desc_act). */
#ifndef INFERD_ENGINE_MODEL_COLUMN_ORDER_H
#define INFERD_ENGINE_MODEL_COLUMN_ORDER_H

#include "engine/model/weights.h"

/* Checks what only the values of quantized linears can tell; then fills in input_order of each link
 * that has one. The parts of one link must have the same. Waits. */
bool column_orders_upload(const struct model *m, struct device *d, struct weights *w,
                          struct status *st);

#endif
