/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in patterns of model names. The first that matches and whose vocabulary is loaded wins;
 * one with vocabulary NULL ends the search: the family's vocabulary is known to be another, or is
 * not public. A name is compared without what stands before its last '/'.
 */
#include "tokenizer/models/models.h"

static const struct models_pattern patterns[] = {
    /* OpenAI: which encoding belongs to which model is listed in its tiktoken library. */
    { "gpt-oss*", "o200k_harmony", FIT_OWN },
    { "gpt-oss*", "o200k_base", FIT_RELATIVE },
    { "gpt-4o*", "o200k_base", FIT_OWN },
    { "chatgpt-4o*", "o200k_base", FIT_OWN },
    { "gpt-4.1*", "o200k_base", FIT_OWN },
    { "gpt-4.5*", "o200k_base", FIT_OWN },
    { "gpt-5*", "o200k_base", FIT_OWN },
    { "o1", "o200k_base", FIT_OWN },
    { "o1-*", "o200k_base", FIT_OWN },
    { "o3", "o200k_base", FIT_OWN },
    { "o3-*", "o200k_base", FIT_OWN },
    { "o4-mini*", "o200k_base", FIT_OWN },
    { "gpt-4", "cl100k_base", FIT_OWN },
    { "gpt-4-*", "cl100k_base", FIT_OWN },
    { "gpt-3.5*", "cl100k_base", FIT_OWN },
    { "gpt-35-turbo*", "cl100k_base", FIT_OWN },
    { "text-embedding-3-*", "cl100k_base", FIT_OWN },
    { "text-embedding-ada-002*", "cl100k_base", FIT_OWN },
    { "davinci-002", "cl100k_base", FIT_OWN },
    { "babbage-002", "cl100k_base", FIT_OWN },
    { "text-davinci-003", "p50k_base", FIT_OWN },
    { "text-davinci-002", "p50k_base", FIT_OWN },
    { "code-davinci-00?", "p50k_base", FIT_OWN },
    { "code-cushman-00?", "p50k_base", FIT_OWN },
    { "davinci-codex", "p50k_base", FIT_OWN },
    { "cushman-codex", "p50k_base", FIT_OWN },
    { "text-davinci-001", "r50k_base", FIT_OWN },
    { "text-curie-001", "r50k_base", FIT_OWN },
    { "text-babbage-001", "r50k_base", FIT_OWN },
    { "text-ada-001", "r50k_base", FIT_OWN },
    { "davinci", "r50k_base", FIT_OWN },
    { "curie", "r50k_base", FIT_OWN },
    { "babbage", "r50k_base", FIT_OWN },
    { "ada", "r50k_base", FIT_OWN },
    { "gpt2", "r50k_base", FIT_OWN },
    { "gpt-2", "r50k_base", FIT_OWN },
    { "gpt2-medium", "r50k_base", FIT_OWN },
    { "gpt2-large", "r50k_base", FIT_OWN },
    { "gpt2-xl", "r50k_base", FIT_OWN },

    /* Qwen3: the sizes of the first release carry the template that the vocabulary file has;
     * later ones have templates of their own. Qwen3.5 has another vocabulary, and what stands
     * behind the names of the API is not told. */
    { "qwen3.*", NULL, FIT_OWN },
    { "qwen3-max*", NULL, FIT_OWN },
    { "qwen3-plus*", NULL, FIT_OWN },
    { "qwen3-*2507*", "qwen3", FIT_RELATIVE },
    { "qwen3-coder*", "qwen3", FIT_RELATIVE },
    { "qwen3-vl*", "qwen3", FIT_RELATIVE },
    { "qwen3-next*", "qwen3", FIT_RELATIVE },
    { "qwen3-omni*", "qwen3", FIT_RELATIVE },
    { "qwen3-embedding*", "qwen3", FIT_RELATIVE },
    { "qwen3-reranker*", "qwen3", FIT_RELATIVE },
    { "qwen3guard*", "qwen3", FIT_RELATIVE },
    { "qwen3-0.6b*", "qwen3", FIT_OWN },
    { "qwen3-1.7b*", "qwen3", FIT_OWN },
    { "qwen3-4b*", "qwen3", FIT_OWN },
    { "qwen3-8b*", "qwen3", FIT_OWN },
    { "qwen3-14b*", "qwen3", FIT_OWN },
    { "qwen3-32b*", "qwen3", FIT_OWN },
    { "qwen3-30b-a3b*", "qwen3", FIT_OWN },
    { "qwen3-235b-a22b*", "qwen3", FIT_OWN },
    { "qwen3", "qwen3", FIT_OWN },
    { "qwen3:*", "qwen3", FIT_OWN },
    /* Qwen2.5; its vocabulary and merges are those of Qwen3 and of Qwen1.5, CodeQwen's are
     * not. */
    { "codeqwen*", NULL, FIT_OWN },
    { "qwen-*", NULL, FIT_OWN },
    { "qwen2.5-vl*", "qwen2_5", FIT_RELATIVE },
    { "qwen2.5-math*", "qwen2_5", FIT_RELATIVE },
    { "qwen2.5-omni*", "qwen2_5", FIT_RELATIVE },
    { "qwen2.5*", "qwen2_5", FIT_OWN },
    { "qwen2.5*", "qwen3", FIT_RELATIVE },
    { "qwen2-*", "qwen2_5", FIT_RELATIVE },
    { "qwen2-*", "qwen3", FIT_RELATIVE },
    { "qwq-*", "qwen2_5", FIT_RELATIVE },
    { "qwq-*", "qwen3", FIT_RELATIVE },
    { "qvq-*", "qwen2_5", FIT_RELATIVE },
    { "qvq-*", "qwen3", FIT_RELATIVE },
    { "qwen1.5-*", "qwen1_5", FIT_OWN },
    { "qwen1.5-*", "qwen2_5", FIT_RELATIVE },
    { "qwen1.5-*", "qwen3", FIT_RELATIVE },

    /* DeepSeek. The distilled models have the vocabularies of what they were distilled into,
     * and templates of their own; Ollama calls them by their sizes. The names of the API move
     * from release to release. */
    { "deepseek-r1-distill-qwen*", "qwen2_5", FIT_RELATIVE },
    { "deepseek-r1-distill-qwen*", "qwen3", FIT_RELATIVE },
    { "deepseek-r1-0528-qwen3*", "qwen3", FIT_RELATIVE },
    { "deepseek-r1-distill-llama*", "llama3_2", FIT_RELATIVE },
    { "deepseek-r1-distill*", NULL, FIT_OWN },
    { "deepseek-r1:1.5b*", "qwen2_5", FIT_RELATIVE },
    { "deepseek-r1:1.5b*", "qwen3", FIT_RELATIVE },
    { "deepseek-r1:7b*", "qwen2_5", FIT_RELATIVE },
    { "deepseek-r1:7b*", "qwen3", FIT_RELATIVE },
    { "deepseek-r1:14b*", "qwen2_5", FIT_RELATIVE },
    { "deepseek-r1:14b*", "qwen3", FIT_RELATIVE },
    { "deepseek-r1:32b*", "qwen2_5", FIT_RELATIVE },
    { "deepseek-r1:32b*", "qwen3", FIT_RELATIVE },
    { "deepseek-r1:70b*", "llama3_2", FIT_RELATIVE },
    { "deepseek-r1:671b*", "deepseek_v3", FIT_OWN },
    { "deepseek-r1:*", NULL, FIT_OWN },
    { "deepseek-v3.*", "deepseek_v3", FIT_RELATIVE },
    { "deepseek-v3", "deepseek_v3", FIT_OWN },
    { "deepseek-v3-*", "deepseek_v3", FIT_OWN },
    { "deepseek-v3:*", "deepseek_v3", FIT_OWN },
    { "deepseek-r1", "deepseek_v3", FIT_OWN },
    { "deepseek-r1-0528*", "deepseek_v3", FIT_OWN },
    { "deepseek-r1-zero*", "deepseek_v3", FIT_RELATIVE },
    { "deepseek-r1-671b*", "deepseek_v3", FIT_OWN },
    { "deepseek-r1*", NULL, FIT_OWN },
    { "deepseek-chat*", "deepseek_v3", FIT_RELATIVE },
    { "deepseek-reasoner*", "deepseek_v3", FIT_RELATIVE },
    { "deepseek-*", NULL, FIT_OWN },

    /* Llama 3: one vocabulary, a template per release. Llama 4 has another one, Llama 2 and
     * its kin have that of Llama 1. */
    { "llama-4*", NULL, FIT_OWN },
    { "llama4*", NULL, FIT_OWN },
    { "llama-guard-4*", NULL, FIT_OWN },
    { "*llama-4-*", NULL, FIT_OWN },
    { "llama-3.2-*vision*", "llama3_2", FIT_RELATIVE },
    { "llama-3.2-*", "llama3_2", FIT_OWN },
    { "llama3.2*", "llama3_2", FIT_OWN },
    { "llama-3.?", "llama3_2", FIT_RELATIVE },
    { "llama-3.1-*", "llama3_2", FIT_RELATIVE },
    { "llama-3.3-*", "llama3_2", FIT_RELATIVE },
    { "llama3.1*", "llama3_2", FIT_RELATIVE },
    { "llama3.3*", "llama3_2", FIT_RELATIVE },
    { "llama-3-*", "llama3_2", FIT_RELATIVE },
    { "meta-llama-3-*", "llama3_2", FIT_RELATIVE },
    { "meta-llama-3.1-*", "llama3_2", FIT_RELATIVE },
    { "llama-guard-3*", "llama3_2", FIT_RELATIVE },
    { "llama3", "llama3_2", FIT_RELATIVE },
    { "llama3:*", "llama3_2", FIT_RELATIVE },
    { "llama3-8b*", "llama3_2", FIT_RELATIVE },
    { "llama3-70b*", "llama3_2", FIT_RELATIVE },
    { "llama-2-*", "llama2", FIT_RELATIVE },
    { "llama2*", "llama2", FIT_RELATIVE },
    { "codellama-*", "llama2", FIT_RELATIVE },
    { "vicuna-*", "llama2", FIT_RELATIVE },
    { "tinyllama*", "llama2", FIT_RELATIVE },

    /* Mistral. The Tekken of July 2024; later models have other versions of it, and those
     * between Mistral 7B v0.3 and it (Mixtral 8x22B, Mistral Large 2407) a vocabulary with
     * other ids. */
    { "mistral-nemo*", "mistral_nemo", FIT_OWN },
    { "open-mistral-nemo*", "mistral_nemo", FIT_OWN },
    { "mistral-7b*-v0.3*", NULL, FIT_OWN },
    { "mistral-7b-v0.1*", "mistral_v1", FIT_RELATIVE },
    { "mistral-7b-instruct-v0.1*", "mistral_v1", FIT_RELATIVE },
    { "mistral-7b-instruct-v0.2*", "mistral_v1", FIT_RELATIVE },
    { "mixtral-8x7b*", "mistral_v1", FIT_RELATIVE },
    { "zephyr-7b*", "mistral_v1", FIT_GUESS },

    { "gemma-3n*", "gemma3", FIT_RELATIVE },
    { "gemma3n*", "gemma3", FIT_RELATIVE },
    { "medgemma-*", "gemma3", FIT_RELATIVE },
    { "gemma-3-*", "gemma3", FIT_OWN },
    { "gemma3", "gemma3", FIT_OWN },
    { "gemma3:*", "gemma3", FIT_OWN },
    { "gemma-2-*", "gemma2", FIT_OWN },
    { "gemma2", "gemma2", FIT_OWN },
    { "gemma2:*", "gemma2", FIT_OWN },
    { "gemma-2b*", "gemma2", FIT_RELATIVE },
    { "gemma-7b*", "gemma2", FIT_RELATIVE },
    { "gemma-1.1-*", "gemma2", FIT_RELATIVE },
    { "codegemma-*", "gemma2", FIT_RELATIVE },
    { "yi-6b*", "yi", FIT_OWN },
    { "yi-9b*", "yi", FIT_OWN },
    { "yi-34b*", "yi", FIT_OWN },
    { "yi-1.5-*", "yi", FIT_RELATIVE },
    { "yi-*", NULL, FIT_OWN },
    { "internlm2-*", "internlm2", FIT_OWN },
    { "internlm2_5-*", "internlm2", FIT_RELATIVE },
    { "internlm2.5-*", "internlm2", FIT_RELATIVE },
    { "c4ai-command-r-plus*", "command_r_plus", FIT_OWN },
    { "command-r-plus*", "command_r_plus", FIT_OWN },
    { "c4ai-command-r-*", "command_r_plus", FIT_RELATIVE },
    { "command-r", "command_r_plus", FIT_RELATIVE },
    { "command-r-*", "command_r_plus", FIT_RELATIVE },
    { "aya-expanse-*", "aya_expanse", FIT_OWN },
    { "c4ai-aya-expanse-*", "aya_expanse", FIT_RELATIVE },
    { "aya-23-*", "aya_expanse", FIT_RELATIVE },
    { "baichuan2-*", "baichuan2", FIT_OWN },
    { "chatglm3-*", "chatglm3", FIT_OWN },

    /* Names that contain that of a family: tuned models, mostly. Some were given more tokens. */
    { "*llama-3.1*", "llama3_2", FIT_GUESS },
    { "*llama-3.2*", "llama3_2", FIT_GUESS },
    { "*llama-3.3*", "llama3_2", FIT_GUESS },
    { "*llama-3-*", "llama3_2", FIT_GUESS },
    { "*llama3*", "llama3_2", FIT_GUESS },
    { "*qwen3-*", "qwen3", FIT_GUESS },
    { "*qwen2.5-*", "qwen2_5", FIT_GUESS },
    { "*qwen2.5-*", "qwen3", FIT_GUESS },
    { "*mistral-nemo*", "mistral_nemo", FIT_GUESS },
    { "*gemma-3-*", "gemma3", FIT_GUESS },
    { "*gemma-2-*", "gemma2", FIT_GUESS },
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
