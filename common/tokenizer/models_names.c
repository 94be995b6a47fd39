/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in patterns of model names. The first that matches and whose vocabulary is loaded wins;
 * one with vocabulary NULL ends the search: the family's vocabulary is known to be another, or is
 * not public. `sibling`: text is counted exactly, a chat only with the template of a relative.
 */
#include "tokenizer/models.h"

static const struct models_pattern patterns[] = {
    /* OpenAI: which encoding belongs to which model is listed in its tiktoken library. */
    { "gpt-oss*", "o200k_harmony", false },
    { "gpt-4o*", "o200k_base", false },
    { "chatgpt-4o*", "o200k_base", false },
    { "gpt-4.1*", "o200k_base", false },
    { "gpt-4.5*", "o200k_base", false },
    { "gpt-5*", "o200k_base", false },
    { "o1", "o200k_base", false },
    { "o1-*", "o200k_base", false },
    { "o3", "o200k_base", false },
    { "o3-*", "o200k_base", false },
    { "o4-mini*", "o200k_base", false },
    { "gpt-4", "cl100k_base", false },
    { "gpt-4-*", "cl100k_base", false },
    { "gpt-3.5*", "cl100k_base", false },
    { "gpt-35-turbo*", "cl100k_base", false },
    { "text-embedding-3-*", "cl100k_base", false },
    { "text-embedding-ada-002*", "cl100k_base", false },
    { "davinci-002", "cl100k_base", false },
    { "babbage-002", "cl100k_base", false },
    { "text-davinci-003", "p50k_base", false },
    { "text-davinci-002", "p50k_base", false },
    { "code-davinci-00?", "p50k_base", false },
    { "text-davinci-001", "r50k_base", false },
    { "gpt2*", "r50k_base", false },

    /* Qwen3: the sizes of the first release carry the template that the vocabulary file has; later
     * ones have templates of their own. Qwen3.5 has another vocabulary. */
    { "qwen3.*", NULL, false },
    { "qwen3-max*", NULL, false },
    { "qwen3-plus*", NULL, false },
    { "qwen3-*2507*", "qwen3", true },
    { "qwen3-coder*", "qwen3", true },
    { "qwen3-vl*", "qwen3", true },
    { "qwen3-next*", "qwen3", true },
    { "qwen3-omni*", "qwen3", true },
    { "qwen3-embedding*", "qwen3", true },
    { "qwen3-reranker*", "qwen3", true },
    { "qwen3-0.6b*", "qwen3", false },
    { "qwen3-1.7b*", "qwen3", false },
    { "qwen3-4b*", "qwen3", false },
    { "qwen3-8b*", "qwen3", false },
    { "qwen3-14b*", "qwen3", false },
    { "qwen3-32b*", "qwen3", false },
    { "qwen3-30b-a3b*", "qwen3", false },
    { "qwen3-235b-a22b*", "qwen3", false },
    { "qwen3", "qwen3", false },
    { "qwen3:*", "qwen3", false },
    /* Qwen2.5; its vocabulary and merges are those of Qwen3. */
    { "qwen2.5-vl*", "qwen2_5", true },
    { "qwen2.5-math*", "qwen2_5", true },
    { "qwen2.5-omni*", "qwen2_5", true },
    { "qwen2.5*", "qwen2_5", false },
    { "qwen2.5*", "qwen3", true },
    { "qwen2-*", "qwen2_5", true },
    { "qwen2-*", "qwen3", true },
    { "qwq-*", "qwen2_5", true },
    { "qwq-*", "qwen3", true },

    /* DeepSeek. The distilled models have the vocabularies of what they were distilled into, and
     * templates of their own. The names of the API move from release to release. */
    { "deepseek-r1-distill-qwen*", "qwen2_5", true },
    { "deepseek-r1-distill-qwen*", "qwen3", true },
    { "deepseek-r1-0528-qwen3*", "qwen3", true },
    { "deepseek-r1-distill-llama*", "llama3_2", true },
    { "deepseek-r1-distill*", NULL, false },
    { "deepseek-v3.*", "deepseek_v3", true },
    { "deepseek-v3*", "deepseek_v3", false },
    { "deepseek-r1*", "deepseek_v3", false },
    { "deepseek-chat*", "deepseek_v3", true },
    { "deepseek-reasoner*", "deepseek_v3", true },

    /* Llama 3: one vocabulary, a template per release. */
    { "llama-3.2-*vision*", "llama3_2", true },
    { "llama-3.2-*", "llama3_2", false },
    { "llama3.2*", "llama3_2", false },
    { "llama-3.1-*", "llama3_2", true },
    { "llama-3.3-*", "llama3_2", true },
    { "llama3.1*", "llama3_2", true },
    { "llama3.3*", "llama3_2", true },
    { "llama-3-*", "llama3_2", true },
    { "meta-llama-3-*", "llama3_2", true },
    { "meta-llama-3.1-*", "llama3_2", true },
    { "llama3", "llama3_2", true },
    { "llama3:*", "llama3_2", true },

    /* Mistral's Tekken of July 2024. Later models have other versions of it. */
    { "mistral-nemo*", "mistral_nemo", false },
    { "open-mistral-nemo*", "mistral_nemo", false },

    { "gemma-3n*", "gemma3", true },
    { "gemma-3-*", "gemma3", false },
    { "gemma3*", "gemma3", false },
    { "llama-2-*", "llama2", true },
    { "yi-*", "yi", true },
    { "internlm2-*", "internlm2", true },
    { "internlm2_5-*", "internlm2", true },
    { "c4ai-command-r-plus*", "command_r_plus", true },
};

const struct models_pattern *models_pattern(size_t i)
{
    return i < ARRAY_LEN(patterns) ? &patterns[i] : NULL;
}

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool models_match(struct str pattern, struct str s)
{
    size_t p = 0, i = 0, star = SIZE_MAX, mark = 0;
    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = i;
        } else if (p < pattern.n && (pattern.p[p] == '?' || fold(pattern.p[p]) == fold(s.p[i]))) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') p++;
    return p == pattern.n;
}
