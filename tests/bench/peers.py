#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts tokens with what Python has, for `make bench-tokens`, as peers/main.rs does:

    peers.py PEER FAMILY TOKENIZER.JSON RANKS.TIKTOKEN FILE...

Prints a JSON line per file: MB/s of the processor's time, one thread, the fastest call for a count
that the package has: on the second half of the documents before anything of it was seen, and on all of
them again and again. A package that needs more than 0.3 seconds for a half is given only as many of its
documents as fit in that.
"""
import json
import os
import shutil
import sys
import tempfile
import time

OPENAI = ("cl100k_base", "o200k_base", "o200k_harmony", "p50k_base", "r50k_base")


def documents(path):
    out = []
    with open(path, "rb") as f:
        while line := f.readline():
            out.append(f.read(int(line)).decode("utf-8", "replace"))
    return out


def of_openai(family, ranks):
    import tiktoken.load
    from tiktoken_ext import openai_public as public
    folder = os.path.dirname(ranks)
    public.load_tiktoken_bpe = lambda address, expected_hash=None: tiktoken.load.load_tiktoken_bpe(
        os.path.join(folder, os.path.basename(address)), expected_hash)
    return tiktoken.Encoding(**public.ENCODING_CONSTRUCTORS[family]())


def counter(peer, family, path, ranks):
    """A function from documents to the list of their counts; None where the package lacks the family."""
    if peer == "tiktoken":
        if family not in OPENAI:
            return None
        e = of_openai(family, ranks)
        encode = e._core_bpe.encode_ordinary
        return lambda docs: [len(encode(d)) for d in docs]
    if peer == "tiktoken, to a buffer":  # what encode_to_numpy calls: no Python object for each id
        if family not in OPENAI:
            return None
        e = of_openai(family, ranks)
        encode, none = e._core_bpe.encode_to_tiktoken_buffer, set()
        return lambda docs: [memoryview(encode(d, none)).nbytes // 4 for d in docs]
    if peer == "tokenizers":
        from tokenizers import Tokenizer
        t = Tokenizer.from_file(path)
        return lambda docs: [len(e) for e in t.encode_batch_fast(docs, add_special_tokens=False)]
    if peer == "gigatoken":
        import gigatoken
        t = gigatoken.Tokenizer(path)
        return lambda docs: [len(t.encode(d)) for d in docs]
    if peer == "gigatoken, one batch":
        import awkward
        import gigatoken
        t = gigatoken.Tokenizer(path)
        return lambda docs: awkward.num(t.encode_batch(docs, parallel=False)).tolist()
    if peer == "wordchipper" and family in OPENAI:
        # Its ranks come from a folder where it keeps what it has fetched: ours are put there.
        with tempfile.TemporaryDirectory() as cache:
            os.makedirs(os.path.join(cache, "openai", family))
            shutil.copy(ranks, os.path.join(cache, "openai", family, family + ".tiktoken"))
            os.environ["WORDCHIPPER_CACHE_DIR"] = cache
            import wordchipper
            t = wordchipper.Tokenizer.from_pretrained(family)
        return lambda docs: [len(t.encode(d)) for d in docs]
    return None


def main():
    os.environ.update(TIKTOKEN_CACHE_DIR="", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    peer, family, path, ranks = sys.argv[1:5]
    count = counter(peer, family, path, ranks)
    if count is None:
        print(json.dumps({"peer": peer, "none": True}))
        return 0
    now = time.process_time
    for name in sys.argv[5:]:
        every, begin, tokens, used = documents(name), now(), 0, []
        half = len(every) // 2
        for part in (every[:half], every[half:]):
            n, took, start, step = 0, 0, now(), max(1, len(part) // 25)
            while n < len(part) and took < 0.3:
                tokens += sum(count(part[n:n + step]))
                n = min(n + step, len(part))
                took = now() - start
            used.append(part[:n])
        size = [sum(len(d.encode()) for d in part) for part in used]
        docs, fresh, took = used[0] + used[1], took, []
        while len(took) < 2 or (len(took) < 9 and now() - begin < 1.4):
            start = now()
            count(docs)
            took.append(now() - start)
        took.sort()
        print(json.dumps({"peer": peer, "file": name, "docs": [len(u) for u in used], "bytes": sum(size),
                          "tokens": tokens, "fresh": round(size[1] / fresh / 1e6, 2),
                          "best": round(sum(size) / took[0] / 1e6, 2),
                          "median": round(sum(size) / took[len(took) // 2] / 1e6, 2)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
