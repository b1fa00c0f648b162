/* jinja_ast.h - the tree of a parsed template.
 *
 * One shape for every node; which fields a kind uses is told beside it. Built by the parser in the
 * template's arena, never changed afterwards. */
#ifndef INFERD_ENGINE_TEXT_JINJA_AST_H
#define INFERD_ENGINE_TEXT_JINJA_AST_H

#include "engine/text/jinja_call.h"

enum jinja_node_kind {
    /* expressions */
    JINJA_N_CONST,   /* value */
    JINJA_N_NAME,    /* name, builtin (the global of that name); flag: it is assigned to */
    JINJA_N_LIST,    /* items */
    JINJA_N_TUPLE,   /* items */
    JINJA_N_DICT,    /* items of kind PAIR */
    JINJA_N_PAIR,    /* a: b */
    JINJA_N_GETATTR, /* a.name */
    JINJA_N_GETITEM, /* a[b] */
    JINJA_N_SLICE,   /* a[b], b being [a:b:c], each may be NULL */
    JINJA_N_CALL,    /* a(items, kwargs, *b, **c) */
    JINJA_N_FILTER,  /* a | builtin or name(items, kwargs, *b, **c); a NULL: the block's text */
    JINJA_N_TEST,    /* a is builtin or name(...) */
    JINJA_N_KEYWORD, /* name = a */
    JINJA_N_COND,    /* a if b else c, c may be NULL */
    JINJA_N_AND,     /* a, b; likewise OR */
    JINJA_N_OR,
    JINJA_N_NOT, /* a; likewise NEG, POS */
    JINJA_N_NEG,
    JINJA_N_POS,
    JINJA_N_BINARY,   /* a op b */
    JINJA_N_TEXT_SUM, /* items joined by ~ */
    JINJA_N_COMPARE,  /* a, then items of kind OPERAND */
    JINJA_N_OPERAND,  /* op, a */
    JINJA_N_NSREF,    /* name . value (a string), assigned to */
    /* statements */
    JINJA_N_DATA,         /* value */
    JINJA_N_PRINT,        /* a */
    JINJA_N_IF,           /* items of kind BRANCH */
    JINJA_N_BRANCH,       /* a (NULL: else), body */
    JINJA_N_FOR,          /* for a in b if c (or NULL), body, orelse; flag: recursive */
    JINJA_N_SET,          /* a = b */
    JINJA_N_SET_BLOCK,    /* a = body, through the filters b (or NULL) */
    JINJA_N_MACRO,        /* name, items: parameters, kwargs: defaults of the last ones, body */
    JINJA_N_CALL_BLOCK,   /* as MACRO, without name, and a: the call */
    JINJA_N_FILTER_BLOCK, /* body through the filters a */
    JINJA_N_WITH,         /* items: targets, kwargs: values, body */
    JINJA_N_BLOCK,        /* name, body; flag: scoped */
    JINJA_N_GENERATION,   /* body */
    JINJA_N_BREAK,
    JINJA_N_CONTINUE
};

enum jinja_op {
    JINJA_OP_ADD,
    JINJA_OP_SUB,
    JINJA_OP_MUL,
    JINJA_OP_DIV,
    JINJA_OP_FLOORDIV,
    JINJA_OP_MOD,
    JINJA_OP_POW,
    JINJA_OP_EQ,
    JINJA_OP_NE,
    JINJA_OP_LT,
    JINJA_OP_LE,
    JINJA_OP_GT,
    JINJA_OP_GE,
    JINJA_OP_IN,
    JINJA_OP_NOT_IN
};

/* What a macro's body asks for beyond its parameters. */
enum { JINJA_USES_CALLER = 1, JINJA_USES_KWARGS = 2, JINJA_USES_VARARGS = 4 };

struct jinja_nodes {
    struct jinja_node **at;
    size_t len, cap;
};

struct jinja_node {
    enum jinja_node_kind kind;
    enum jinja_op op;
    int32_t line;
    bool flag;
    uint8_t uses;                    /* of MACRO and CALL_BLOCK */
    const struct jinja_string *name; /* interned: equal names are the same pointer */
    const struct jinja_builtin *builtin;
    struct jinja_value value;
    struct jinja_node *a, *b, *c;
    struct jinja_nodes items, kwargs, body, orelse;
};

struct jinja_template {
    struct jinja_env env; /* its arena holds all that follows */
    const char *source;
    size_t source_len;
    struct jinja_nodes body;
    /* Interned names the interpreter assigns by itself. */
    const struct jinja_string *name_loop, *name_caller, *name_kwargs, *name_varargs;
};

/* Calls `visit` on each child in source order, until one gives false. */
bool jinja_node_children(const struct jinja_node *n,
                         bool (*visit)(const struct jinja_node *child, void *arg), void *arg);

#endif
