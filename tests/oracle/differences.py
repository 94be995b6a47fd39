# SPDX-License-Identifier: Apache-2.0
"""Where npm's @huggingface/jinja does not do what Jinja2 does. Jinja2 is right: it is what the
models' own tools run. Whatever is not explained here is a failure of the oracle."""
import re

JOINTS = re.compile(r"[\[\]\"', ]")
NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def plain(text):
    """A text without what differs in how values print."""
    text = re.sub(r"\\[nrt]", " ", text)
    text = re.sub(r"\\(['\"\\])", r"\1", text).replace("'", '"').replace("\\\\", "\\")
    text = re.sub(r"\b(None|null|undefined)\b", "", text)
    text = re.sub(r"\b(True|False)\b", lambda m: m.group().lower(), text)
    text = re.sub(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})", lambda m: chr(int(m.group(1) or m.group(2), 16)), text)
    return NUMBER.sub(lambda m: repr(float(m.group()) + 0.0), text)


def python_error(want, kinds):
    return "error" in want and want["error"].startswith(kinds)


def bare(text):
    """And without white space, and without what is left of a thought of nothing else."""
    return re.sub(r"\s", "", plain(text)).replace("<think></think>", "")


def system_is_false(context):
    """A first message whose content JavaScript finds equal to false."""
    first = context["messages"][0] if context["messages"] else {}
    content = first.get("content")
    return first.get("role") == "system" and (content == [] or isinstance(content, str) and content.strip() in ("", "0"))


# (what @huggingface/jinja does; whether this is such a case: the template, the context, what Jinja2 gave, what it gave)
RULES = (
    ("prints numbers, None, lists and dicts as JavaScript does",
     lambda t, c, w, g: "text" in w and "text" in g and plain(w["text"]) == plain(g["text"])),
    ("strips all white space where strip, lstrip, rstrip are told which characters",
     lambda t, c, w, g: "text" in w and "text" in g and bare(w["text"]) == bare(g["text"])),
    ("adds strings to anything, and asks members of what is undefined",
     lambda t, c, w, g: "text" in g and python_error(w, ("TypeError", "UndefinedError", "AttributeError"))),
    ("refuses to walk over what is undefined or null",
     lambda t, c, w, g: "text" in w and "Expected iterable" in g.get("error", "")),
    ("refuses filters and `in` for types that Jinja2 takes",
     lambda t, c, w, g: "text" in w and re.search(
         r"Unknown \w+ filter|Cannot apply filter|Unknown operator|Cannot perform operation", g.get("error", ""))),
    ("finds the texts '' and '0' equal to false",
     lambda t, c, w, g: "text" in w and "text" in g and "system_message != false" in t and system_is_false(c)),
    ("joins lists and dicts to strings as JavaScript does",
     lambda t, c, w, g: "text" in w and "text" in g and " ~ " in t and (
         "[object Map]" in g["text"] or JOINTS.sub("", bare(w["text"])) == JOINTS.sub("", bare(g["text"])))),
    ("compares dicts by what they are, not by what they hold",
     lambda t, c, w, g: "text" in w and "text" in g and "message == user_messages[-1]" in t),
    ("does not find what is undefined, or empty, iterable or a sequence",
     lambda t, c, w, g: "text" in w and "text" in g and ("Union[]" in w["text"] or "type:[]" in w["text"])),
    ("calls a dict's member where Jinja2 calls the method of that name",
     lambda t, c, w, g: "text" in w and "not a function: got" in g.get("error", "")),
    ("has no map with the name of a filter",
     lambda t, c, w, g: "text" in w and g.get("error", "").startswith("`map` expressions")),
    ("does not find a dict iterable",
     lambda t, c, w, g: "text" in w and g.get("error") == "Invalid content type"),
    ("selects nothing with the test 'undefined' of selectattr",
     lambda t, c, w, g: "text" in g and w.get("raised") and 'selectattr("tool_calls", "undefined")' in t),
)


def explain(template, context, want, got):
    for what, holds in RULES:
        if holds(template, context, want, got):
            return what
    return None
