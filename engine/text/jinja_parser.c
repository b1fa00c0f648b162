/* jinja_parser.c - statements and the template as a whole. */
#include "engine/text/jinja_parser.h"
#include "base/hash.h"

#include <string.h>

/* Open addressing; the template's size bounds it. */
struct jinja_name_set {
    const struct jinja_string **at;
    size_t len, cap;
};

static struct jinja_nodes parse_body(struct jinja_parser *p, const char *const *end_names);

const struct jinja_token *jinja_peek(const struct jinja_parser *p)
{
    return &p->tokens.at[p->at];
}

const struct jinja_token *jinja_look(const struct jinja_parser *p)
{
    return &p->tokens.at[p->at + 1 < p->tokens.len ? p->at + 1 : p->at];
}

const struct jinja_token *jinja_take(struct jinja_parser *p)
{
    const struct jinja_token *t = jinja_peek(p);
    p->env->line = t->line;
    jinja_charge(p->env, 1);
    if (p->at + 1 < p->tokens.len)
        p->at++;
    return t;
}

bool jinja_at_type(const struct jinja_parser *p, enum jinja_token_type type)
{
    return jinja_peek(p)->type == type;
}

bool jinja_at_name(const struct jinja_parser *p, const char *name)
{
    const struct jinja_token *t = jinja_peek(p);
    return t->type == JINJA_T_NAME && jinja_str_is(t->value.as.string, name);
}

bool jinja_skip_type(struct jinja_parser *p, enum jinja_token_type type)
{
    if (!jinja_at_type(p, type))
        return false;
    jinja_take(p);
    return true;
}

bool jinja_skip_name(struct jinja_parser *p, const char *name)
{
    if (!jinja_at_name(p, name))
        return false;
    jinja_take(p);
    return true;
}

_Noreturn void jinja_unexpected(struct jinja_parser *p, const char *before)
{
    const struct jinja_token *t = jinja_peek(p);
    p->env->line = t->line;
    if (t->type == JINJA_T_NAME) {
        int n = (int)(t->value.as.string->len > 100 ? 100 : t->value.as.string->len);
        jinja_fail(p->env, "%s'%.*s'", before, n, t->value.as.string->data);
    }
    jinja_fail(p->env, "%s'%s'", before, jinja_token_name(t->type));
}

const struct jinja_token *jinja_expect(struct jinja_parser *p, enum jinja_token_type type)
{
    if (jinja_at_type(p, type))
        return jinja_take(p);
    const char *wanted = jinja_token_name(type);
    p->env->line = jinja_peek(p)->line;
    if (jinja_at_type(p, JINJA_T_EOF))
        jinja_fail(p->env, "unexpected end of template, expected '%s'.", wanted);
    char before[96] = "expected token '";
    strncat(before, wanted, 60);
    strcat(before, "', got ");
    jinja_unexpected(p, before);
}

void jinja_expect_name(struct jinja_parser *p, const char *name)
{
    if (jinja_skip_name(p, name))
        return;
    char before[64] = "expected token '";
    strncat(before, name, 20);
    strcat(before, "', got ");
    jinja_unexpected(p, before);
}

struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind, int32_t line)
{
    struct jinja_node *n = jinja_alloc(p->env, sizeof *n);
    n->kind = kind;
    n->line = line;
    return n;
}

void jinja_nodes_push(struct jinja_parser *p, struct jinja_nodes *list, struct jinja_node *n)
{
    if (list->len == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        struct jinja_node **grown = jinja_array(p->env, cap, sizeof grown[0]);
        if (list->len)
            memcpy(grown, list->at, list->len * sizeof grown[0]);
        list->at = grown;
        list->cap = cap;
    }
    list->at[list->len++] = n;
}

static size_t name_slot(const struct jinja_name_set *set, const struct jinja_string *name)
{
    static const struct hash_key key = { 0 }; /* the model's own template: nobody to defend from */
    size_t at = (size_t)hash_sip128(key, name->data, name->len).low & (set->cap - 1);
    while (set->at[at] && !jinja_str_equal(set->at[at], name))
        at = (at + 1) & (set->cap - 1);
    return at;
}

static const struct jinja_string *intern_in(struct jinja_parser *p, struct jinja_name_set *set,
                                            const struct jinja_string *name)
{
    if (set->len * 2 >= set->cap) {
        struct jinja_name_set grown = { .len = set->len, .cap = set->cap ? set->cap * 2 : 64 };
        grown.at = jinja_array(p->env, grown.cap, sizeof grown.at[0]);
        for (size_t i = 0; i < set->cap; i++)
            if (set->at[i])
                grown.at[name_slot(&grown, set->at[i])] = set->at[i];
        *set = grown;
    }
    size_t at = name_slot(set, name);
    if (!set->at[at]) {
        set->at[at] = name;
        set->len++;
    }
    return set->at[at];
}

const struct jinja_string *jinja_intern(struct jinja_parser *p, const struct jinja_string *name)
{
    return intern_in(p, p->names, name);
}

static const struct jinja_string *expect_identifier(struct jinja_parser *p)
{
    static const char *const constants[] = { "true", "false", "none", "True", "False", "None" };
    const struct jinja_token *t = jinja_expect(p, JINJA_T_NAME);
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (jinja_str_is(t->value.as.string, constants[i]))
            jinja_fail(p->env, "can't assign to 'name'");
    return jinja_intern(p, t->value.as.string);
}

static struct jinja_node *parse_set(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endset", NULL };
    n->a = jinja_parse_target(p, true);
    if (jinja_skip_type(p, JINJA_T_ASSIGN)) {
        n->kind = JINJA_N_SET;
        n->b = jinja_parse_tuple(p, true, false);
        return n;
    }
    n->kind = JINJA_N_SET_BLOCK;
    n->b = jinja_parse_filters(p, NULL, false);
    n->body = parse_body(p, end);
    jinja_take(p);
    return n;
}

static struct jinja_node *parse_for(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const ends[] = { "endfor", "else", NULL };
    n->kind = JINJA_N_FOR;
    n->a = jinja_parse_target(p, false);
    jinja_expect_name(p, "in");
    n->b = jinja_parse_tuple(p, false, false);
    if (jinja_skip_name(p, "if"))
        n->c = jinja_parse_expression(p, true);
    n->flag = jinja_skip_name(p, "recursive");
    n->body = parse_body(p, ends);
    bool has_else = jinja_at_name(p, "else");
    jinja_take(p);
    if (has_else) {
        static const char *const end[] = { "endfor", NULL };
        n->orelse = parse_body(p, end);
        jinja_take(p);
    }
    return n;
}

static struct jinja_node *parse_if(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    static const char *const end[] = { "endif", NULL };
    n->kind = JINJA_N_IF;
    for (;;) {
        struct jinja_node *branch = jinja_node_new(p, JINJA_N_BRANCH, jinja_peek(p)->line);
        branch->a = jinja_parse_tuple(p, false, false);
        branch->body = parse_body(p, ends);
        jinja_nodes_push(p, &n->items, branch);
        if (jinja_skip_name(p, "elif"))
            continue;
        bool has_else = jinja_at_name(p, "else");
        int32_t line = jinja_take(p)->line;
        if (has_else) {
            branch = jinja_node_new(p, JINJA_N_BRANCH, line);
            branch->body = parse_body(p, end);
            jinja_nodes_push(p, &n->items, branch);
            jinja_take(p);
        }
        return n;
    }
}

static void parse_signature(struct jinja_parser *p, struct jinja_node *n)
{
    jinja_expect(p, JINJA_T_LPAREN);
    while (!jinja_at_type(p, JINJA_T_RPAREN)) {
        if (n->items.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        struct jinja_node *param = jinja_node_new(p, JINJA_N_NAME, jinja_peek(p)->line);
        param->name = expect_identifier(p);
        param->flag = true;
        for (size_t i = 0; i < n->items.len; i++)
            if (n->items.at[i]->name == param->name)
                jinja_fail(p->env, "duplicate argument '%.*s' in function definition",
                           (int)param->name->len, param->name->data);
        if (jinja_skip_type(p, JINJA_T_ASSIGN))
            jinja_nodes_push(p, &n->kwargs, jinja_parse_expression(p, true));
        else if (n->kwargs.len > 0)
            jinja_fail(p->env, "non-default argument follows default argument");
        jinja_nodes_push(p, &n->items, param);
    }
    jinja_expect(p, JINJA_T_RPAREN);
}

static struct jinja_node *parse_macro(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endmacro", NULL };
    n->kind = JINJA_N_MACRO;
    n->name = expect_identifier(p);
    parse_signature(p, n);
    n->body = parse_body(p, end);
    jinja_take(p);
    return n;
}

static struct jinja_node *parse_call_block(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endcall", NULL };
    n->kind = JINJA_N_CALL_BLOCK;
    if (jinja_at_type(p, JINJA_T_LPAREN))
        parse_signature(p, n);
    n->a = jinja_parse_expression(p, true);
    if (n->a->kind != JINJA_N_CALL)
        jinja_fail(p->env, "expected call");
    n->body = parse_body(p, end);
    jinja_take(p);
    return n;
}

static struct jinja_node *parse_filter_block(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endfilter", NULL };
    n->kind = JINJA_N_FILTER_BLOCK;
    n->a = jinja_parse_filters(p, NULL, true);
    n->body = parse_body(p, end);
    jinja_take(p);
    return n;
}

static struct jinja_node *parse_with(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endwith", NULL };
    n->kind = JINJA_N_WITH;
    while (!jinja_at_type(p, JINJA_T_BLOCK_END)) {
        if (n->items.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        jinja_nodes_push(p, &n->items, jinja_parse_target(p, false));
        jinja_expect(p, JINJA_T_ASSIGN);
        jinja_nodes_push(p, &n->kwargs, jinja_parse_expression(p, true));
    }
    n->body = parse_body(p, end);
    jinja_take(p);
    return n;
}

static struct jinja_node *parse_block(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endblock", NULL };
    n->kind = JINJA_N_BLOCK;
    n->name = jinja_intern(p, jinja_expect(p, JINJA_T_NAME)->value.as.string);
    size_t known = p->blocks->len;
    intern_in(p, p->blocks, n->name);
    if (p->blocks->len == known)
        jinja_fail(p->env, "block '%.*s' defined twice",
                   (int)(n->name->len > 100 ? 100 : n->name->len), n->name->data);
    n->flag = jinja_skip_name(p, "scoped");
    n->body = parse_body(p, end);
    jinja_take(p);
    if (jinja_at_type(p, JINJA_T_NAME) && jinja_str_equal(jinja_peek(p)->value.as.string, n->name))
        jinja_take(p);
    return n;
}

static struct jinja_node *parse_generation(struct jinja_parser *p, struct jinja_node *n)
{
    static const char *const end[] = { "endgeneration", NULL };
    n->kind = JINJA_N_GENERATION;
    n->body = parse_body(p, end);
    jinja_take(p);
    return n;
}

static struct jinja_node *parse_break(struct jinja_parser *p, struct jinja_node *n)
{
    (void)p;
    n->kind = JINJA_N_BREAK;
    return n;
}

static struct jinja_node *parse_continue(struct jinja_parser *p, struct jinja_node *n)
{
    (void)p;
    n->kind = JINJA_N_CONTINUE;
    return n;
}

/* {% print a, b %}: each printed; a PRINT of several becomes an IF without condition. */
static struct jinja_node *parse_print(struct jinja_parser *p, struct jinja_node *n)
{
    n->kind = JINJA_N_IF;
    struct jinja_node *all = jinja_node_new(p, JINJA_N_BRANCH, n->line);
    jinja_nodes_push(p, &n->items, all);
    while (!jinja_at_type(p, JINJA_T_BLOCK_END)) {
        if (all->body.len > 0)
            jinja_expect(p, JINJA_T_COMMA);
        struct jinja_node *print = jinja_node_new(p, JINJA_N_PRINT, n->line);
        print->a = jinja_parse_expression(p, true);
        jinja_nodes_push(p, &all->body, print);
    }
    return n;
}

static struct jinja_node *parse_statement(struct jinja_parser *p)
{
    static const struct {
        const char *tag;
        struct jinja_node *(*parse)(struct jinja_parser *p, struct jinja_node *n);
    } tags[] = {
        { "for", parse_for },
        { "if", parse_if },
        { "set", parse_set },
        { "macro", parse_macro },
        { "call", parse_call_block },
        { "with", parse_with },
        { "filter", parse_filter_block },
        { "block", parse_block },
        { "print", parse_print },
        { "generation", parse_generation },
        { "break", parse_break },
        { "continue", parse_continue },
    };
    static const char *const refused[] = { "extends", "include", "import", "from", "autoescape" };
    const struct jinja_token *t = jinja_peek(p);
    p->env->line = t->line;
    if (t->type != JINJA_T_NAME)
        jinja_fail(p->env, "tag name expected");
    const struct jinja_string *tag = t->value.as.string;
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        if (jinja_str_is(tag, tags[i].tag)) {
            jinja_take(p);
            jinja_enter(p->env);
            struct jinja_node *n = tags[i].parse(p, jinja_node_new(p, JINJA_N_IF, t->line));
            jinja_leave(p->env);
            return n;
        }
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (jinja_str_is(tag, refused[i]))
            jinja_fail(p->env, "the tag '%s' is not offered to chat templates", refused[i]);
    int n = (int)(tag->len > 60 ? 60 : tag->len);
    jinja_fail(p->env, "Encountered unknown tag '%.*s'.", n, tag->data);
}

/* Nodes up to a tag of `end_names` (NULL: the end of the template), which is left as the current
 * token. */
static struct jinja_nodes parse_nodes(struct jinja_parser *p, const char *const *end_names)
{
    struct jinja_nodes body = { 0 };
    for (;;) {
        const struct jinja_token *t = jinja_peek(p);
        struct jinja_node *n;
        switch (t->type) {
        case JINJA_T_DATA:
            n = jinja_node_new(p, JINJA_N_DATA, t->line);
            n->value = jinja_take(p)->value;
            jinja_nodes_push(p, &body, n);
            break;
        case JINJA_T_VARIABLE_BEGIN:
            jinja_take(p);
            n = jinja_node_new(p, JINJA_N_PRINT, t->line);
            n->a = jinja_parse_tuple(p, true, false);
            jinja_expect(p, JINJA_T_VARIABLE_END);
            jinja_nodes_push(p, &body, n);
            break;
        case JINJA_T_BLOCK_BEGIN:
            jinja_take(p);
            for (size_t i = 0; end_names && end_names[i]; i++)
                if (jinja_at_name(p, end_names[i]))
                    return body;
            jinja_nodes_push(p, &body, parse_statement(p));
            jinja_expect(p, JINJA_T_BLOCK_END);
            break;
        default:
            if (!end_names)
                return body;
            p->env->line = t->line;
            jinja_fail(p->env, "Unexpected end of template. The tag '%s' is missing.",
                       end_names[0]);
        }
    }
}

/* The body of a statement, from the end of its opening tag. */
static struct jinja_nodes parse_body(struct jinja_parser *p, const char *const *end_names)
{
    jinja_skip_type(p, JINJA_T_COLON);
    jinja_expect(p, JINJA_T_BLOCK_END);
    return parse_nodes(p, end_names);
}

void jinja_parse_template(struct jinja_template *t)
{
    struct jinja_name_set names = { 0 }, blocks = { 0 };
    struct jinja_parser p = { .env = &t->env, .names = &names, .blocks = &blocks };
    jinja_tokenize(&t->env, t->source, t->source_len, &p.tokens);
    t->name_loop = jinja_intern(&p, jinja_str_literal(&t->env, "loop"));
    t->name_caller = jinja_intern(&p, jinja_str_literal(&t->env, "caller"));
    t->name_kwargs = jinja_intern(&p, jinja_str_literal(&t->env, "kwargs"));
    t->name_varargs = jinja_intern(&p, jinja_str_literal(&t->env, "varargs"));
    t->body = parse_nodes(&p, NULL);
}
