#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The reference engines themselves, asked like `aigw-vocab ids`: texts on stdin, each as its length on a
line, then its bytes; a line of ids for each on stdout.

    refs.py tokenizers TOKENIZER.JSON | refs.py tiktoken FAMILY.JSON text|control
"""
import json
import os
import sys


def tokenizers_encode(path):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    return lambda s: t.encode(s, add_special_tokens=False).ids


def tiktoken_encode(path, mode):
    """OpenAI's own table of encodings, its files read from where `make vocab` put them."""
    import tiktoken.load
    from tiktoken_ext import openai_public as public
    family = json.load(open(path))
    folder = os.path.dirname(family["source"])
    public.load_tiktoken_bpe = lambda address, expected_hash=None: tiktoken.load.load_tiktoken_bpe(
        os.path.join(folder, os.path.basename(address)), expected_hash)
    e = tiktoken.Encoding(**public.ENCODING_CONSTRUCTORS[family["name"]]())
    return (lambda s: e.encode(s, allowed_special="all")) if mode == "control" else e.encode_ordinary


def main():
    os.environ["TIKTOKEN_CACHE_DIR"] = ""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    engine, path = sys.argv[1:3]
    encode = tokenizers_encode(path) if engine == "tokenizers" else tiktoken_encode(path, sys.argv[3])
    texts, out = sys.stdin.buffer, sys.stdout
    while line := texts.readline():
        out.write(" ".join(map(str, encode(texts.read(int(line)).decode("utf-8", "replace")))) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
