/* jinja_parse_expr.c - expressions, by precedence: if, or, and, not, comparison, + -, ~, * / // %,
 * **, unary, then subscripts, calls, filters and tests. Powers group to the left and unary minus
 * binds before them, as Jinja has it. */
#include "engine/text/jinja_parser.h"

static struct jinja_node *parse_cond(struct jinja_parser *p);
static struct jinja_node *parse_binary(struct jinja_parser *p, int level);
static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filters);
static struct jinja_node *parse_primary(struct jinja_parser *p, bool with_namespace);

static struct jinja_node *two(struct jinja_parser *p, enum jinja_node_kind kind,
                              struct jinja_node *a, struct jinja_node *b)
{
    struct jinja_node *n = jinja_node_new(p, kind, a->line);
    n->a = a;
    n->b = b;
    return n;
}

static struct jinja_node *constant(struct jinja_parser *p, struct jinja_value value, int32_t line)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_CONST, line);
    n->value = value;
    return n;
}

static struct jinja_node *parse_not(struct jinja_parser *p);

static struct jinja_node *parse_and(struct jinja_parser *p)
{
    struct jinja_node *left = parse_not(p);
    while (jinja_skip_name(p, "and"))
        left = two(p, JINJA_N_AND, left, parse_not(p));
    return left;
}

static struct jinja_node *parse_or(struct jinja_parser *p)
{
    struct jinja_node *left = parse_and(p);
    while (jinja_skip_name(p, "or"))
        left = two(p, JINJA_N_OR, left, parse_and(p));
    return left;
}

struct jinja_node *jinja_parse_expression(struct jinja_parser *p, bool with_cond)
{
    jinja_enter(p->env);
    struct jinja_node *n = with_cond ? parse_cond(p) : parse_or(p);
    jinja_leave(p->env);
    return n;
}

static struct jinja_node *parse_cond(struct jinja_parser *p)
{
    struct jinja_node *value = parse_or(p);
    while (jinja_skip_name(p, "if")) {
        struct jinja_node *n = two(p, JINJA_N_COND, value, parse_or(p));
        if (jinja_skip_name(p, "else"))
            n->c = jinja_parse_expression(p, true);
        value = n;
    }
    return value;
}

static bool comparison(struct jinja_parser *p, enum jinja_op *op)
{
    static const struct {
        enum jinja_token_type type;
        enum jinja_op op;
    } ops[] = { { JINJA_T_EQ, JINJA_OP_EQ }, { JINJA_T_NE, JINJA_OP_NE },
                { JINJA_T_LT, JINJA_OP_LT }, { JINJA_T_LE, JINJA_OP_LE },
                { JINJA_T_GT, JINJA_OP_GT }, { JINJA_T_GE, JINJA_OP_GE } };
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (jinja_skip_type(p, ops[i].type)) {
            *op = ops[i].op;
            return true;
        }
    }
    if (jinja_skip_name(p, "in")) {
        *op = JINJA_OP_IN;
        return true;
    }
    const struct jinja_token *next = jinja_look(p);
    if (jinja_at_name(p, "not") && next->type == JINJA_T_NAME &&
        jinja_str_is(next->value.as.string, "in")) {
        jinja_take(p);
        jinja_take(p);
        *op = JINJA_OP_NOT_IN;
        return true;
    }
    return false;
}

static struct jinja_node *parse_compare(struct jinja_parser *p)
{
    struct jinja_node *first = parse_binary(p, 0), *n = NULL;
    enum jinja_op op;
    while (comparison(p, &op)) {
        if (!n) {
            n = jinja_node_new(p, JINJA_N_COMPARE, first->line);
            n->a = first;
        }
        struct jinja_node *operand = jinja_node_new(p, JINJA_N_OPERAND, first->line);
        operand->op = op;
        operand->a = parse_binary(p, 0);
        jinja_nodes_push(p, &n->items, operand);
    }
    return n ? n : first;
}

static struct jinja_node *parse_not(struct jinja_parser *p)
{
    if (!jinja_at_name(p, "not"))
        return parse_compare(p);
    int32_t line = jinja_take(p)->line;
    jinja_enter(p->env);
    struct jinja_node *n = jinja_node_new(p, JINJA_N_NOT, line);
    n->a = parse_not(p);
    jinja_leave(p->env);
    return n;
}

/* Level 0: + -; 1: ~ (a list of its own); 2: * / // %; 3: **. */
static bool binary_operator(struct jinja_parser *p, int level, enum jinja_op *op)
{
    static const struct {
        enum jinja_token_type type;
        enum jinja_op op;
        int level;
    } ops[] = {
        { JINJA_T_ADD, JINJA_OP_ADD, 0 }, { JINJA_T_SUB, JINJA_OP_SUB, 0 },
        { JINJA_T_MUL, JINJA_OP_MUL, 2 }, { JINJA_T_DIV, JINJA_OP_DIV, 2 },
        { JINJA_T_MOD, JINJA_OP_MOD, 2 }, { JINJA_T_FLOORDIV, JINJA_OP_FLOORDIV, 2 },
        { JINJA_T_POW, JINJA_OP_POW, 3 },
    };
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (ops[i].level == level && jinja_skip_type(p, ops[i].type)) {
            *op = ops[i].op;
            return true;
        }
    }
    return false;
}

static struct jinja_node *parse_text_sum(struct jinja_parser *p)
{
    struct jinja_node *first = parse_binary(p, 2);
    if (!jinja_at_type(p, JINJA_T_TILDE))
        return first;
    struct jinja_node *n = jinja_node_new(p, JINJA_N_TEXT_SUM, first->line);
    jinja_nodes_push(p, &n->items, first);
    while (jinja_skip_type(p, JINJA_T_TILDE))
        jinja_nodes_push(p, &n->items, parse_binary(p, 2));
    return n;
}

static struct jinja_node *parse_operand(struct jinja_parser *p, int level)
{
    return level == 0 ? parse_text_sum(p) : level == 2 ? parse_binary(p, 3) : parse_unary(p, true);
}

static struct jinja_node *parse_binary(struct jinja_parser *p, int level)
{
    struct jinja_node *left = parse_operand(p, level);
    enum jinja_op op;
    while (binary_operator(p, level, &op)) {
        left = two(p, JINJA_N_BINARY, left, parse_operand(p, level));
        left->op = op;
    }
    return left;
}

static struct jinja_node *parse_list(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_LIST, jinja_take(p)->line);
    while (!jinja_at_type(p, JINJA_T_RBRACKET)) {
        if (n->items.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        if (jinja_at_type(p, JINJA_T_RBRACKET))
            break;
        jinja_nodes_push(p, &n->items, jinja_parse_expression(p, true));
    }
    jinja_expect(p, JINJA_T_RBRACKET);
    return n;
}

static struct jinja_node *parse_dict(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_DICT, jinja_take(p)->line);
    while (!jinja_at_type(p, JINJA_T_RBRACE)) {
        if (n->items.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        if (jinja_at_type(p, JINJA_T_RBRACE))
            break;
        struct jinja_node *key = jinja_parse_expression(p, true);
        jinja_expect(p, JINJA_T_COLON);
        jinja_nodes_push(p, &n->items, two(p, JINJA_N_PAIR, key, jinja_parse_expression(p, true)));
    }
    jinja_expect(p, JINJA_T_RBRACE);
    return n;
}

static bool is_one_of(const struct jinja_string *s, const char *a, const char *b)
{
    return jinja_str_is(s, a) || jinja_str_is(s, b);
}

static struct jinja_node *parse_name(struct jinja_parser *p, bool with_namespace)
{
    const struct jinja_token *t = jinja_take(p);
    const struct jinja_string *name = t->value.as.string;
    if (is_one_of(name, "true", "True"))
        return constant(p, jinja_bool(true), t->line);
    if (is_one_of(name, "false", "False"))
        return constant(p, jinja_bool(false), t->line);
    if (is_one_of(name, "none", "None"))
        return constant(p, jinja_none(), t->line);
    int32_t line = t->line;
    if (with_namespace && jinja_skip_type(p, JINJA_T_DOT)) {
        struct jinja_node *n = jinja_node_new(p, JINJA_N_NSREF, line);
        n->name = jinja_intern(p, name);
        n->value = jinja_expect(p, JINJA_T_NAME)->value;
        return n;
    }
    struct jinja_node *n = jinja_node_new(p, JINJA_N_NAME, line);
    n->name = jinja_intern(p, name);
    n->builtin = jinja_find_global(n->name);
    return n;
}

static struct jinja_node *parse_primary(struct jinja_parser *p, bool with_namespace)
{
    const struct jinja_token *t = jinja_peek(p);
    struct jinja_node *n;
    switch (t->type) {
    case JINJA_T_NAME:
        return parse_name(p, with_namespace);
    case JINJA_T_STRING:
        n = constant(p, jinja_take(p)->value, t->line);
        while (jinja_at_type(p, JINJA_T_STRING)) /* adjacent literals are one */
            n->value = jinja_string(
                jinja_str_concat(p->env, n->value.as.string, jinja_take(p)->value.as.string));
        return n;
    case JINJA_T_INTEGER:
    case JINJA_T_FLOAT:
        return constant(p, jinja_take(p)->value, t->line);
    case JINJA_T_LPAREN:
        jinja_take(p);
        n = jinja_parse_tuple(p, true, true);
        jinja_expect(p, JINJA_T_RPAREN);
        return n;
    case JINJA_T_LBRACKET:
        return parse_list(p);
    case JINJA_T_LBRACE:
        return parse_dict(p);
    default:
        jinja_unexpected(p, "unexpected ");
    }
}

/* What is between the commas of a subscript: an expression or a slice. */
static struct jinja_node *parse_subscribed(struct jinja_parser *p)
{
    int32_t line = jinja_peek(p)->line;
    struct jinja_node *start = NULL;
    if (!jinja_at_type(p, JINJA_T_COLON)) {
        start = jinja_parse_expression(p, true);
        if (!jinja_at_type(p, JINJA_T_COLON))
            return start;
    }
    jinja_take(p);
    struct jinja_node *n = jinja_node_new(p, JINJA_N_SLICE, line);
    n->a = start;
    if (!jinja_at_type(p, JINJA_T_COLON) && !jinja_at_type(p, JINJA_T_RBRACKET) &&
        !jinja_at_type(p, JINJA_T_COMMA))
        n->b = jinja_parse_expression(p, true);
    if (jinja_skip_type(p, JINJA_T_COLON) && !jinja_at_type(p, JINJA_T_RBRACKET) &&
        !jinja_at_type(p, JINJA_T_COMMA))
        n->c = jinja_parse_expression(p, true);
    return n;
}

static struct jinja_node *parse_subscript(struct jinja_parser *p, struct jinja_node *node)
{
    const struct jinja_token *t = jinja_take(p);
    if (t->type == JINJA_T_DOT) {
        const struct jinja_token *attr = jinja_take(p);
        if (attr->type == JINJA_T_NAME) {
            struct jinja_node *n = two(p, JINJA_N_GETATTR, node, NULL);
            n->name = jinja_intern(p, attr->value.as.string);
            return n;
        }
        if (attr->type != JINJA_T_INTEGER)
            jinja_fail(p->env, "expected name or number");
        return two(p, JINJA_N_GETITEM, node, constant(p, attr->value, attr->line));
    }
    struct jinja_node *tuple = jinja_node_new(p, JINJA_N_TUPLE, t->line);
    while (!jinja_at_type(p, JINJA_T_RBRACKET)) {
        if (tuple->items.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        jinja_nodes_push(p, &tuple->items, parse_subscribed(p));
    }
    jinja_expect(p, JINJA_T_RBRACKET);
    if (tuple->items.len == 1)
        return two(p, JINJA_N_GETITEM, node, tuple->items.at[0]);
    for (size_t i = 0; i < tuple->items.len; i++)
        if (tuple->items.at[i]->kind == JINJA_N_SLICE)
            jinja_fail(p->env, "a slice must be the only subscript");
    return two(p, JINJA_N_GETITEM, node, tuple);
}

/* `(a, b, name=c, *d, **e)` into the fields of `n`. */
static void parse_call_args(struct jinja_parser *p, struct jinja_node *n)
{
    jinja_expect(p, JINJA_T_LPAREN);
    bool first = true, valid = true;
    while (!jinja_at_type(p, JINJA_T_RPAREN)) {
        if (!first) {
            jinja_expect(p, JINJA_T_COMMA);
            if (jinja_at_type(p, JINJA_T_RPAREN))
                break;
        }
        first = false;
        if (jinja_skip_type(p, JINJA_T_MUL)) {
            valid = !n->b && !n->c;
            n->b = jinja_parse_expression(p, true);
        } else if (jinja_skip_type(p, JINJA_T_POW)) {
            valid = !n->c;
            n->c = jinja_parse_expression(p, true);
        } else if (jinja_at_type(p, JINJA_T_NAME) && jinja_look(p)->type == JINJA_T_ASSIGN) {
            valid = !n->c;
            const struct jinja_token *key = jinja_take(p);
            jinja_take(p);
            struct jinja_node *kw = jinja_node_new(p, JINJA_N_KEYWORD, key->line);
            kw->name = jinja_intern(p, key->value.as.string);
            for (size_t i = 0; i < n->kwargs.len; i++)
                if (n->kwargs.at[i]->name == kw->name)
                    jinja_fail(p->env, "keyword argument repeated: %.*s", (int)kw->name->len,
                               kw->name->data);
            kw->a = jinja_parse_expression(p, true);
            jinja_nodes_push(p, &n->kwargs, kw);
        } else {
            valid = !n->b && !n->c && n->kwargs.len == 0;
            jinja_nodes_push(p, &n->items, jinja_parse_expression(p, true));
        }
        if (!valid)
            jinja_fail(p->env, "invalid syntax for function call expression");
    }
    jinja_expect(p, JINJA_T_RPAREN);
}

static struct jinja_node *parse_call(struct jinja_parser *p, struct jinja_node *callee)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_CALL, jinja_peek(p)->line);
    n->a = callee;
    parse_call_args(p, n);
    return n;
}

static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *n)
{
    for (;;) {
        if (jinja_at_type(p, JINJA_T_DOT) || jinja_at_type(p, JINJA_T_LBRACKET))
            n = parse_subscript(p, n);
        else if (jinja_at_type(p, JINJA_T_LPAREN))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* `name` or `name.name`, interned. */
static const struct jinja_string *parse_dotted(struct jinja_parser *p)
{
    const struct jinja_string *name = jinja_expect(p, JINJA_T_NAME)->value.as.string;
    while (jinja_skip_type(p, JINJA_T_DOT)) {
        name = jinja_str_concat(p->env, name, jinja_str_literal(p->env, "."));
        name = jinja_str_concat(p->env, name, jinja_expect(p, JINJA_T_NAME)->value.as.string);
    }
    return jinja_intern(p, name);
}

struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node,
                                       bool inline_start)
{
    while (inline_start || jinja_at_type(p, JINJA_T_PIPE)) {
        if (!inline_start)
            jinja_take(p);
        inline_start = false;
        struct jinja_node *n = jinja_node_new(p, JINJA_N_FILTER, jinja_peek(p)->line);
        n->a = node;
        n->name = parse_dotted(p);
        n->builtin = jinja_find_filter(n->name);
        if (jinja_at_type(p, JINJA_T_LPAREN))
            parse_call_args(p, n);
        node = n;
    }
    return node;
}

static bool starts_test_argument(struct jinja_parser *p)
{
    switch (jinja_peek(p)->type) {
    case JINJA_T_STRING:
    case JINJA_T_INTEGER:
    case JINJA_T_FLOAT:
    case JINJA_T_LBRACKET:
    case JINJA_T_LBRACE:
        return true;
    case JINJA_T_NAME:
        return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    default:
        return false;
    }
}

static struct jinja_node *parse_test(struct jinja_parser *p, struct jinja_node *node)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_TEST, jinja_take(p)->line);
    bool negated = jinja_skip_name(p, "not");
    n->a = node;
    n->name = parse_dotted(p);
    n->builtin = jinja_find_test(n->name);
    if (jinja_at_type(p, JINJA_T_LPAREN)) {
        parse_call_args(p, n);
    } else if (starts_test_argument(p)) {
        if (jinja_at_name(p, "is"))
            jinja_fail(p->env, "You cannot chain multiple tests with is");
        jinja_enter(p->env);
        jinja_nodes_push(p, &n->items, parse_postfix(p, parse_primary(p, false)));
        jinja_leave(p->env);
    }
    if (!negated)
        return n;
    struct jinja_node *not = jinja_node_new(p, JINJA_N_NOT, n->line);
    not ->a = n;
    return not ;
}

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filters)
{
    const struct jinja_token *t = jinja_peek(p);
    struct jinja_node *n;
    jinja_enter(p->env);
    if (t->type == JINJA_T_SUB || t->type == JINJA_T_ADD) {
        jinja_take(p);
        n = jinja_node_new(p, t->type == JINJA_T_SUB ? JINJA_N_NEG : JINJA_N_POS, t->line);
        n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    while (with_filters) {
        if (jinja_at_type(p, JINJA_T_PIPE))
            n = jinja_parse_filters(p, n, false);
        else if (jinja_at_name(p, "is"))
            n = parse_test(p, n);
        else if (jinja_at_type(p, JINJA_T_LPAREN))
            n = parse_call(p, n);
        else
            break;
    }
    jinja_leave(p->env);
    return n;
}

static bool at_tuple_end(const struct jinja_parser *p)
{
    return jinja_at_type(p, JINJA_T_VARIABLE_END) || jinja_at_type(p, JINJA_T_BLOCK_END) ||
           jinja_at_type(p, JINJA_T_RPAREN);
}

struct tuple_rules {
    bool simple; /* only primaries: an assignment target */
    bool with_namespace, with_cond, parenthesized;
};

static struct jinja_node *parse_tuple(struct jinja_parser *p, const struct tuple_rules *rules)
{
    struct jinja_node *tuple = jinja_node_new(p, JINJA_N_TUPLE, jinja_peek(p)->line);
    bool is_tuple = false;
    for (;;) {
        if (tuple->items.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        if (at_tuple_end(p))
            break;
        jinja_enter(p->env);
        jinja_nodes_push(p, &tuple->items,
                         rules->simple ? parse_primary(p, rules->with_namespace)
                                       : jinja_parse_expression(p, rules->with_cond));
        jinja_leave(p->env);
        if (!jinja_at_type(p, JINJA_T_COMMA))
            break;
        is_tuple = true;
    }
    if (is_tuple || (tuple->items.len == 0 && rules->parenthesized))
        return tuple;
    if (tuple->items.len == 0)
        jinja_unexpected(p, "Expected an expression, got ");
    return tuple->items.at[0];
}

struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, bool with_cond, bool parenthesized)
{
    return parse_tuple(
        p, &(struct tuple_rules){ .with_cond = with_cond, .parenthesized = parenthesized });
}

/* Marks names as assigned to, and refuses what cannot be. */
static void make_target(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const kinds[] = {
        [JINJA_N_CONST] = "const", [JINJA_N_LIST] = "list", [JINJA_N_DICT] = "dict"
    };
    jinja_enter(p->env);
    if (n->kind == JINJA_N_NAME) {
        n->flag = true;
    } else if (n->kind == JINJA_N_TUPLE) {
        for (size_t i = 0; i < n->items.len; i++)
            make_target(p, n->items.at[i]);
    } else if (n->kind != JINJA_N_NSREF) {
        p->env->line = n->line;
        const char *kind = n->kind <= JINJA_N_DICT ? kinds[n->kind] : NULL;
        jinja_fail(p->env, "can't assign to '%s'", kind ? kind : "expression");
    }
    jinja_leave(p->env);
}

struct jinja_node *jinja_parse_target(struct jinja_parser *p, bool with_namespace)
{
    struct jinja_node *n =
        parse_tuple(p, &(struct tuple_rules){ .simple = true, .with_namespace = with_namespace });
    make_target(p, n);
    return n;
}
