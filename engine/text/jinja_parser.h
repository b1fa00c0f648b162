/* jinja_parser.h - what the two halves of the parser, statements and expressions, share.
 *
 * Recursive descent over the tokens; every recursion is guarded by jinja_enter. */
#ifndef INFERD_ENGINE_TEXT_JINJA_PARSER_H
#define INFERD_ENGINE_TEXT_JINJA_PARSER_H

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

struct jinja_name_set; /* interned names */

struct jinja_parser {
    struct jinja_env *env;
    struct jinja_tokens tokens;
    size_t at;
    struct jinja_name_set *names, *blocks;
};

/* Parses a whole template into t->body; fails through t->env. */
void jinja_parse_template(struct jinja_template *t);
/* Judges the tree: names of filters and tests, break outside loops; fills what macros use. */
void jinja_check_template(struct jinja_template *t);

const struct jinja_token *jinja_peek(const struct jinja_parser *p);
const struct jinja_token *jinja_look(const struct jinja_parser *p); /* one further */
const struct jinja_token *jinja_take(struct jinja_parser *p);
bool jinja_at_type(const struct jinja_parser *p, enum jinja_token_type type);
bool jinja_at_name(const struct jinja_parser *p, const char *name);
bool jinja_skip_type(struct jinja_parser *p, enum jinja_token_type type);
bool jinja_skip_name(struct jinja_parser *p, const char *name);
const struct jinja_token *jinja_expect(struct jinja_parser *p, enum jinja_token_type type);
void jinja_expect_name(struct jinja_parser *p, const char *name);
_Noreturn void jinja_unexpected(struct jinja_parser *p, const char *before);

struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind, int32_t line);
void jinja_nodes_push(struct jinja_parser *p, struct jinja_nodes *list, struct jinja_node *n);
const struct jinja_string *jinja_intern(struct jinja_parser *p, const struct jinja_string *name);

/* Expressions; `with_cond` allows `a if b`. */
struct jinja_node *jinja_parse_expression(struct jinja_parser *p, bool with_cond);
/* An expression, or a tuple of them where commas follow. */
struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, bool with_cond, bool parenthesized);
/* What can be assigned to: names, tuples of them and, if allowed, namespace attributes. */
struct jinja_node *jinja_parse_target(struct jinja_parser *p, bool with_namespace);
/* `| name(args) | ...` behind `node`; with `inline_start` the first bar is left out. */
struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node,
                                       bool inline_start);

#endif
