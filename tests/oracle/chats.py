#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts whole requests with aigw-count and compares with Jinja2 and Hugging Face's tokenizers.

    chats.py AIGW_COUNT VOCAB_DIR NAME=FOLDER...    FOLDER: tokenizer.json and tokenizer_config.json

Requests are shaped as clients send them (null content, lists of parts, arguments as text, tools,
chat_template_kwargs). They are normalised here a second time, by the words of chat.h, rendered by
Python's Jinja2 and tokenized by the Rust engine through npm's @anush008/tokenizers (chats.mjs).
Text and count must be the same; what the template refuses must be refused. COUNT requests each.
"""
import copy
import datetime
import json
import os
import subprocess
import sys

import templates


def normalise(messages):
    messages = copy.deepcopy(messages)
    for m in messages:
        content = m.get("content")
        if content is None:
            m["content"] = ""
        elif isinstance(content, list):
            m["content"] = "\n".join(part["text"] for part in content)
        for call in (m.get("tool_calls") or []) if m["role"] == "assistant" else []:
            arguments = call["function"].get("arguments")
            if isinstance(arguments, str):
                try:
                    call["function"]["arguments"] = json.loads(arguments) if arguments else {}
                except ValueError:
                    pass
    return messages


def request(maker):
    c = maker.context({})
    for m in c["messages"]:
        for call in m.get("tool_calls") or []:
            if not isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    q = {k: c[k] for k in ("messages", "tools", "add_generation_prompt") if k in c}
    kwargs = {k: c[k] for k in ("enable_thinking", "date_string", "tools_in_user_message") if k in c}
    if kwargs:
        q["chat_template_kwargs"] = kwargs
    return q


def rendered(env, config, q):
    """The text that the model is given, or None when the request is refused."""
    context = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"):
        token = config.get(key)
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            context[key] = token
    context.update(q.get("chat_template_kwargs", {}))
    context.update(messages=normalise(q["messages"]), tools=q.get("tools"), documents=None,
                   add_generation_prompt=q.get("add_generation_prompt", True))
    if not q["messages"]:
        return None
    try:
        return env.from_string(config["chat_template"]).render(**context)
    except Exception:
        return None


def compare(count, vocab_dir, name, folder, n):
    env = templates.environment()
    env.globals["strftime_now"] = datetime.datetime.utcnow().strftime
    config = json.load(open(os.path.join(folder, "tokenizer_config.json")))
    maker = templates.Maker("chats " + name)
    requests = [request(maker) for _ in range(n)]
    lines = "".join(json.dumps(q) + "\n" for q in requests)
    out = subprocess.run([count, "--vocab-dir", vocab_dir, "--model", name, "--render"],
                         input=lines.encode(), capture_output=True, check=True).stdout
    got = [json.loads(line) for line in out.decode().split("\n")[:-1]]
    want = [rendered(env, config, json.loads(json.dumps(q))) for q in requests]
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chats.mjs")
    out = subprocess.run(["node", script, os.path.join(folder, "tokenizer.json")],
                         input="".join(json.dumps(w) + "\n" for w in want if w is not None).encode(),
                         capture_output=True, check=True).stdout
    counts, wrong, refused = iter(map(int, out.split())), 0, 0
    assert len(got) == n
    for q, w, g in zip(requests, want, got):
        refused += w is None
        tokens = None if w is None else next(counts)
        if ("error" in g) if w is None else (g.get("text") == w and g.get("tokens") == tokens):
            continue
        wrong += 1
        if wrong <= 3:
            print(f"DIFFERENT {name}: {json.dumps(q)[:600]}\n  want {tokens} {w!r}\n  got  {g}")
    print(f"{name}: {n} requests ({refused} refused), {wrong} different")
    return wrong


def main():
    count, vocab_dir, models = sys.argv[1], sys.argv[2], sys.argv[3:]
    n = int(os.environ.get("COUNT", "150"))
    wrong = sum(compare(count, vocab_dir, *m.split("=", 1), n) for m in models)
    print(f"{n * len(models) - wrong} passed, {wrong} failed")
    return 1 if wrong or not models else 0


if __name__ == "__main__":
    sys.exit(main())
