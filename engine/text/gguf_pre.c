/* gguf_pre.c - the pre-tokenizers that GGUF files name.
 *
 * The expressions are those of the models' own tokenizer.json, for which the names stand; where
 * llama.cpp writes an approximation of one (its engine knows no case folding inside a group), the
 * original is taken. Each cuts what the one before left, matches and the rest alike. */
#include "engine/text/gguf_pre.h"

#include <string.h>

/* The endings of English words, in any case. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
/* White space: up to a line's end, all but the last before a word, the rest. */
#define SPACES        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORD          "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SYMBOLS       " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SYMBOLS_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
/* A word that goes from upper to lower case, and one that has no lower case. */
#define CASED_HEAD "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_TAIL "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED      CASED_HEAD "*" CASED_TAIL "+"
#define UPPER      CASED_HEAD "+" CASED_TAIL "*"

#define CL100K(digits) CONTRACTIONS "|" WORD "|" digits "|" SYMBOLS "|" SPACES
#define O200K(digits)                                                                              \
    CASED CONTRACTIONS "?|" UPPER CONTRACTIONS "?|" digits "|" SYMBOLS_SLASH "|" SPACES

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Letters of scripts that have case, as the deepseek-llm tokenizer lists them. */
static const char DEEPSEEK_LETTERS[] =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-"
    "ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-"
    "ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-"
    "ᾴᾶ-"
    "ᾼιῂ-"
    "ῄ"
    "ῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃ"
    "ↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-"
    "Ｚａ-"
    "ｚ𐐀-"
    "𐑏𐒰"
    "-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
#define DEEPSEEK_SIGNS "\\s?[!-/:-~！-／：-～‘-‟　-。]+"
#define EAST_ASIAN     "[一-龥ࠀ-一가-퟿]+"
#define KANA_AND_HAN   "[一-龥぀-ゟ゠-ヿ]+"
#define DEEPSEEK_V3                                                                                \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"             \
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
#define CLAUSES " ?[^(\\s|.,!?…。，、।۔،)]+"

static const struct gguf_pre TABLE[] = {
    { "default",
      { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" },
      false,
      false },
    { "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling",
      { GPT2 },
      false,
      false },
    { "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
      { "\\p{N}", GPT2 },
      false,
      false },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
      { CL100K("\\p{N}{1,3}") },
      true,
      true },
    { "dbrx smaug-bpe chatglm-bpe", { CL100K("\\p{N}{1,3}") }, false, false },
    { "glm4 glm5", { CL100K("\\p{N}{1,3}") }, true, false },
    { "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
      { CL100K("\\p{N}") },
      false,
      false },
    { "qwen35",
      { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
                     "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES },
      false,
      false },
    { "minicpm5", { "\\p{N}{1,3}", CL100K("\\p{N}+") }, true, false },
    { "ufakzeka", { WORD "|\\p{N}|" SYMBOLS "|" SPACES }, false, false },
    { "laguna", { "[^\\n]+|[\\n]+", CL100K("\\p{N}") }, false, false },
    { "seed-coder",
      { CONTRACTIONS "|" WORD "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES },
      false,
      false },
    { "bailingmoe bailingmoe2 llada-moe",
      { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}"
        "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+" },
      false,
      false },
    { "exaone-moe",
      { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}"
                     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+" },
      false,
      false },
    { "jais-2",
      { CONTRACTIONS "|" WORD "|\\p{N}{1,3}|" SYMBOLS
                     "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)"
                     "|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)"
                     "|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}" },
      false,
      false },
    { "gpt-4o llama4 kanana2 talkie minimax-m2", { O200K("\\p{N}{1,3}") }, false, false },
    { "tekken", { CASED "|" UPPER "|\\p{N}|" SYMBOLS_SLASH "|" SPACES }, true, true },
    { "tiny_aya cohere2moe", { "\\d{1,3}(?=(?:\\d{3})*\\b)", O200K("\\p{N}{1,3}") }, false, false },
    { "deepseek-llm",
      { "[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_SIGNS, "\\s+$", EAST_ASIAN, "\\p{N}+" },
      false,
      false },
    { "deepseek-coder",
      { "[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", EAST_ASIAN, "\\p{N}" },
      false,
      false },
    { "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
      { "\\p{N}{1,3}", KANA_AND_HAN, DEEPSEEK_V3 },
      false,
      false },
    { "falcon", { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, false, false },
    { "bloom poro-chat gpt3-finnish", { CLAUSES }, false, false },
    { "viking", { CLAUSES, "\\p{N}" }, false, false },
    { "superbpe", { "\\p{N}+", "(?=(\\d{3})+(?!\\d))" }, false, false },
    { "chameleon",
      { "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
        "[\\p{P}!-/:-@\\[-`{-~]", GPT2 },
      false,
      true },
};

enum { NUM_ROWS = sizeof TABLE / sizeof TABLE[0] };

const struct gguf_pre *gguf_pre_find(const char *name, size_t len)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        for (const char *at = TABLE[i].names; *at;) {
            size_t n = strcspn(at, " ");
            if (n == len && memcmp(at, name, len) == 0)
                return &TABLE[i];
            at += n + (at[n] == ' ');
        }
    }
    return NULL;
}

void gguf_pre_names(struct buf *out)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        if (i > 0)
            buf_append_char(out, ' ');
        buf_append_str(out, TABLE[i].names);
    }
}

json_t *gguf_pre_spec(const struct gguf_pre *pre)
{
    json_t *steps = json_array();
    for (int i = 0; i < GGUF_PRE_MAX_PATTERNS && pre->patterns[i]; i++)
        json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split",
                                               "pattern", "Regex", pre->patterns[i], "behavior",
                                               "Isolated", "invert", 0));
    json_array_append_new(steps, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel",
                                           "add_prefix_space", 0, "use_regex", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}
