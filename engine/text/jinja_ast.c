/* jinja_ast.c - walking a tree without knowing its kinds. */
#include "engine/text/jinja_ast.h"

static bool visit_all(const struct jinja_nodes *list,
                      bool (*visit)(const struct jinja_node *child, void *arg), void *arg)
{
    for (size_t i = 0; i < list->len; i++)
        if (!visit(list->at[i], arg))
            return false;
    return true;
}

bool jinja_node_children(const struct jinja_node *n,
                         bool (*visit)(const struct jinja_node *child, void *arg), void *arg)
{
    return (!n->a || visit(n->a, arg)) && visit_all(&n->items, visit, arg) &&
           visit_all(&n->kwargs, visit, arg) && (!n->b || visit(n->b, arg)) &&
           (!n->c || visit(n->c, arg)) && visit_all(&n->body, visit, arg) &&
           visit_all(&n->orelse, visit, arg);
}
