#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts tokens with what Python has, for `make bench-tokens`, as peers/main.rs does:

    peers.py PEER FAMILY TOKENIZER.JSON RANKS.TIKTOKEN FILE...

Loads, then forks each time it is told the number of a file, as the other does: the copy measures new text
when as much of its kind has been counted, and both again; one thread, the fastest call for a count that
the package has. A package that needs more than FIRST or SECOND seconds for a half is given only as many of its
documents as fit in that.
"""
import json
import os
import shutil
import sys
import tempfile
import time

FIRST, SECOND, AGAIN = 0.3, 0.15, 0.12
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


def passes(count, docs, limit):
    """Some of the documents, until the time is up: how many, their tokens, and the time they took."""
    now = time.process_time
    n, tokens, took, start, step = 0, 0, 0, now(), max(1, len(docs) // 25)
    while n < len(docs) and took < limit:
        tokens += sum(count(docs[n:n + step]))
        n = min(n + step, len(docs))
        took = now() - start
    return n, tokens, took


def measure(count, every):
    half, now = len(every) // 2, time.process_time
    first, before, _ = passes(count, every[:half], FIRST)
    second, tokens, fresh = passes(count, every[half:], SECOND)
    new = every[half:half + second]
    docs, took, begin = every[:first] + new, [], now()
    while not took or (len(took) < 9 and now() - begin < AGAIN):
        start = now()
        count(docs)
        took.append(now() - start)
    took.sort()

    def speed(some, seconds):
        return round(sum(len(d.encode()) for d in some) / seconds / 1e6, 2)
    return {"docs": [first, second], "tokens": before + tokens, "new": speed(new, fresh),
            "seen": speed(docs, took[len(took) // 2])}


def main():
    os.environ.update(TIKTOKEN_CACHE_DIR="", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    peer, family, path, ranks = sys.argv[1:5]
    count = counter(peer, family, path, ranks)
    if count is None:
        print(json.dumps({"none": True}))
        return 0
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            print(json.dumps(measure(count, documents(sys.argv[5 + int(line)]))), flush=True)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status != 0:
            sys.exit(f"the copy that measures ended with {status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
