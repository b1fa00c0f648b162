/* jinja_lexer.h - template text to tokens, with the whitespace rules of trim_blocks and
 * lstrip_blocks. */
#ifndef INFERD_ENGINE_TEXT_JINJA_LEXER_H
#define INFERD_ENGINE_TEXT_JINJA_LEXER_H

#include "engine/text/jinja_value.h"

enum jinja_token_type {
    JINJA_T_EOF,
    JINJA_T_DATA,
    JINJA_T_BLOCK_BEGIN,
    JINJA_T_BLOCK_END,
    JINJA_T_VARIABLE_BEGIN,
    JINJA_T_VARIABLE_END,
    JINJA_T_NAME,
    JINJA_T_STRING,
    JINJA_T_INTEGER,
    JINJA_T_FLOAT,
    JINJA_T_ADD,
    JINJA_T_SUB,
    JINJA_T_MUL,
    JINJA_T_DIV,
    JINJA_T_FLOORDIV,
    JINJA_T_MOD,
    JINJA_T_POW,
    JINJA_T_TILDE,
    JINJA_T_LBRACKET,
    JINJA_T_RBRACKET,
    JINJA_T_LPAREN,
    JINJA_T_RPAREN,
    JINJA_T_LBRACE,
    JINJA_T_RBRACE,
    JINJA_T_EQ,
    JINJA_T_NE,
    JINJA_T_GT,
    JINJA_T_GE,
    JINJA_T_LT,
    JINJA_T_LE,
    JINJA_T_ASSIGN,
    JINJA_T_DOT,
    JINJA_T_COLON,
    JINJA_T_PIPE,
    JINJA_T_COMMA,
    JINJA_T_SEMICOLON
};

struct jinja_token {
    enum jinja_token_type type;
    int32_t line;
    struct jinja_value value; /* of NAME (as a string), STRING, DATA, INTEGER, FLOAT */
};

struct jinja_tokens {
    struct jinja_token *at; /* ends with EOF */
    size_t len, cap;
};

/* `source` has its line ends normalised to \n and outlives the tokens; fails through `e`. */
void jinja_tokenize(struct jinja_env *e, const char *source, size_t len, struct jinja_tokens *out);
/* How errors name a token of this type. */
const char *jinja_token_name(enum jinja_token_type type);
/* Resolves the escapes of a Python string literal without its quotes. */
const struct jinja_string *jinja_unescape(struct jinja_env *e, const char *text, size_t len);

#endif
