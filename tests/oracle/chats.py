#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts whole requests with aigw-count and compares with Jinja2 and Hugging Face's tokenizers.

    chats.py AIGW_COUNT VOCAB_DIR NAME=FOLDER...    FOLDER: tokenizer.json and tokenizer_config.json

Requests are shaped as clients send them (null content, lists of parts, arguments as text, tools,
chat_template_kwargs). They are normalised here a second time, by the words of chat.h, rendered by
Python's Jinja2 and tokenized by the Rust engine through npm's @anush008/tokenizers (chats.mjs).
Text and count must be the same; what the template refuses must be refused. At least COUNT (100)
requests each that it takes.
"""
import copy
import datetime
import json
import os
import re
import subprocess
import sys

import conversations
import templates


def text_of(part):
    """The text of a part of a content, None when it is none."""
    if isinstance(part, str):
        return part
    if part.get("type") in ("text", "input_text", "output_text", "refusal", "thinking"):
        return next((part[k] for k in ("text", "refusal", "thinking") if isinstance(part.get(k), str)), None)
    return None


def content_of(content, parts):
    if isinstance(content, str):
        content = [content]
    texts = [(p, text_of(p)) for p in content or []]
    if not parts:
        return "\n".join(t for _, t in texts if t is not None)
    kinds = {"image_url": "image", "image": "image", "video": "video", "audio": "audio", "video_url": "video", "input_audio": "audio"}
    whole = [{"type": "text", "text": t} if t is not None else {"type": kinds.get(p.get("type"))} for p, t in texts]
    return [p for p in whole if p["type"]]


def call_of(call):
    call = copy.deepcopy(call)
    function = call.get("function")
    if isinstance(function, dict):
        arguments = function.get("arguments")
        if not arguments:
            function["arguments"] = {}
        elif isinstance(arguments, str):
            try:
                value = json.loads(arguments)
                function["arguments"] = {} if value is None else value
            except ValueError:
                pass
    return call


def normalise(messages, parts):
    """As docs/tokens.md says it. parts: the template walks over the parts of a content."""
    out = []
    for m in messages:
        n = {"role": m["role"], "content": content_of(m.get("content"), parts and m["role"] != "tool")}
        thought = m.get("reasoning") if m.get("reasoning") is not None else m.get("reasoning_content")
        if m["role"] == "assistant":
            if m.get("tool_calls"):
                n["tool_calls"] = [call_of(c) for c in m["tool_calls"]]
            if thought is not None:
                n.update(reasoning=thought, reasoning_content=thought)
        elif m["role"] == "tool" and "tool_call_id" in m:
            n["tool_call_id"] = m["tool_call_id"]
        if isinstance(m.get("name"), str):
            n["name"] = m["name"]
        if m["role"] == "developer":
            n["tools"] = m.get("tools")
        out.append(n)
    return out


def tool_of(tool):
    f = tool.get("function")
    if not isinstance(f, dict):
        return tool
    f = {"name": f.get("name"), "description": f.get("description"), "parameters": f.get("parameters"), **f}
    return {"type": tool.get("type", "function"), "function": f, **{k: v for k, v in tool.items() if k not in ("type", "function")}}


def odd(q):
    """Is there what our own rules refuse before any template: contents that are neither text nor list nor null?"""
    return not q["messages"] or any(not isinstance(m.get("content"), (str, list, type(None))) for m in q["messages"])


def request(maker):
    c = maker.context({})
    for m in c["messages"]:
        for call in m.get("tool_calls") or []:
            f = call.get("function")
            if isinstance(f, dict) and not isinstance(f.get("arguments"), str) and maker.chance(0.8):
                f["arguments"] = json.dumps(f.get("arguments"))
    q = {k: c.pop(k) for k in ("messages", "tools", "documents", "add_generation_prompt") if k in c}
    if c:
        q["chat_template_kwargs"] = c
    return q


def rendered(env, config, template, q):
    """The text that the model is given, or None when the request is refused."""
    if odd(q):
        return None
    context = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"):
        token = config.get(key)
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            context[key] = token
    tools = q.get("tools")
    parts = re.search(r"for \w+ in message(\.content|\[['\"]content['\"]\])", template) is not None
    context.update(q.get("chat_template_kwargs", {}))
    context.update(messages=normalise(q["messages"], parts), documents=q.get("documents"),
                   tools=[tool_of(t) for t in tools] if tools is not None else None,
                   add_generation_prompt=q.get("add_generation_prompt", True))
    try:
        return env.from_string(template).render(**context)
    except Exception:
        return None


def images(q):
    """What our answer adds for images, by its own warning: they are no part of the text."""
    return sum(isinstance(p, dict) and p.get("type") in ("image", "image_url", "input_image")
               for m in q["messages"] if isinstance(m.get("content"), list) for p in m["content"])


def same(q, want, tokens, got):
    if want is None:
        return "error" in got
    added = sum(int(re.search(r"as (\d+) tokens", w).group(1)) for w in got.get("warnings", []) if "by a rule" in w)
    return got.get("text") == want and got.get("tokens") == tokens + added and (added > 0) == (images(q) > 0)


def has_template(folder):
    return json.load(open(os.path.join(folder, "tokenizer_config.json"))).get("chat_template") is not None


def compare(count, vocab_dir, name, folder, n):
    """Returns a row of the table: requests, refused, different; n of the requests at least are taken."""
    env = templates.environment()
    env.globals["strftime_now"] = datetime.datetime.now(datetime.timezone.utc).strftime
    config = json.load(open(os.path.join(folder, "tokenizer_config.json")))
    choice = config["chat_template"]
    choice = {t["name"]: t["template"] for t in choice} if isinstance(choice, list) else {"default": choice}
    maker, requests, want, taken = conversations.Maker("chats " + name + os.environ.get("SEED", "")), [], [], 0
    while taken < n and len(requests) < 20 * n:
        q = json.loads(json.dumps(request(maker)))
        template = choice.get("tool_use", choice["default"]) if q.get("tools") is not None else choice["default"]
        requests.append(q)
        want.append(rendered(env, config, template, q))
        taken += want[-1] is not None
    lines = "".join(json.dumps(q) + "\n" for q in requests)
    out = subprocess.run([count, "--vocab-dir", vocab_dir, "--model", name, "--render"],
                         input=lines.encode(), capture_output=True, check=True).stdout
    got = [json.loads(line) for line in out.decode().split("\n")[:-1]]
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chats.mjs")
    out = subprocess.run(["node", script, os.path.join(folder, "tokenizer.json")],
                         input="".join(json.dumps(w) + "\n" for w in want if w is not None).encode(),
                         capture_output=True, check=True).stdout
    counts, wrong = iter(map(int, out.split())), 0
    assert len(got) == len(requests)
    for q, w, g in zip(requests, want, got):
        tokens = None if w is None else next(counts)
        if same(q, w, tokens, g):
            continue
        wrong += 1
        if wrong <= 3:
            print(f"DIFFERENT {name}: {json.dumps(q)[:1500]}\n  want {tokens} {w!r}\n  got  {g}")
    refused = len(requests) - taken
    print(f"{name}: {len(requests)} requests ({refused} refused), {wrong} different"
          + (f", only {taken} taken" if taken < n else ""))
    return len(requests), wrong + (taken < n)


def main():
    count, vocab_dir, models = sys.argv[1], sys.argv[2], sys.argv[3:]
    n = int(os.environ.get("COUNT", "100"))
    rows = [compare(count, vocab_dir, *m.split("=", 1), n) for m in models if has_template(m.split("=", 1)[1])]
    wrong = sum(w for _, w in rows)
    print(f"chats: {sum(r for r, _ in rows)} requests compared, {wrong} failures")
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
