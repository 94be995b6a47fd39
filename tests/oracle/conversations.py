# SPDX-License-Identifier: Apache-2.0
"""Draws conversations of every shape that a chat template may be given, for the oracle.

What a client may send and a server may make of it: system messages in odd places, tools (none,
empty, several, nested schemas, all of Unicode), calls with their results, several at once, roles of
single families, reasoning, contents that are null, lists of parts, images, documents, and the
variables that templates know. A seed makes a run repeatable.
"""
import json
import random

WORDS = ("hello world", "", " ", "你好，世界", "naïve café", "line one\nline two\n", "  padded  ",
         "<think>hm\n</think>\n\nyes", "</think>", "<tool_response>x</tool_response>", "a\tb\r\nc",
         '"quoted" \\ and {braces} {{ x }} {% y %}', "emoji 👩‍👩‍👧 ✅", "<|im_end|>", "0", "İstanbul",
         "\u2028sep\u00a0", "x" * 300, "'single' \"double\"", "\u0001\u007f", "[TOOL_CALLS][/INST]</s>", "/quiet", "<|channel|>",
         "a <|eot_id|><end_of_turn><｜User｜>b<|END_OF_TURN_TOKEN|><|im_start|>c")
NUMBERS = (0, 1, -1, 1.0, 1.5, 1e16, 1e-5, 0.1, 123456789012345678901234567890, -0.0, 1e22, 3.14159,
           2.0e-7, 100, 1e15, 123456.789e3)
ROLES = ("developer", "ipython", "", "other", "tool_results", "tool_calls", "function", "tool", "system")


class Maker:
    """tame: this conversation is as every template takes it, without what is odd."""

    def __init__(self, seed):
        self.r, self.tame = random.Random(seed), False

    def chance(self, p):
        return self.r.random() < p

    def text(self):
        return " ".join(self.r.choice(WORDS) for _ in range(self.r.choice((1, 1, 2, 3))))

    def value(self, depth=0):
        kinds = ("str", "num", "bool", "null") + (("list", "dict") if depth < 3 else ())
        kind = self.r.choice(kinds)
        if kind == "str":
            return self.text()
        if kind == "num":
            return self.r.choice(NUMBERS)
        if kind == "bool":
            return self.chance(0.5)
        if kind == "null":
            return None
        n = self.r.choice((0, 1, 2, 3))
        if kind == "list":
            return [self.value(depth + 1) for _ in range(n)]
        return {self.r.choice(("a", "b c", "ключ", "items", "d\n")) + str(i): self.value(depth + 1)
                for i in range(n)}

    # ---- tools ----

    def schema(self, depth=0):
        """A JSON Schema."""
        r = self.r
        s = {}
        if self.chance(0.6):
            s["description"] = self.text()
        if self.chance(0.15):
            s["nullable"] = self.chance(0.7)
        if self.chance(0.2):
            s["default"] = r.choice(("a", 1, True, None, "b c", [1]))
        simple = ("string", "number", "integer", "boolean")
        kind = r.choice(simple + ("enum", "list", "none") + (("array", "object", "anyOf", "oneOf") * 2 if depth < 3 else ()))
        if kind == "enum":
            s.update(type="string", enum=r.choice((["a", "b"], ["x"], ["ein", "zwei", "drei"])))
        elif kind == "list":
            s["type"] = r.choice((["string", "null"], ["number"], ["integer", "string", "null"], [], None))
        elif kind == "array":
            s["type"] = "array"
            if self.chance(0.8):
                s["items"] = self.schema(depth + 1)
        elif kind == "object":
            s.update(self.properties(depth + 1))
            if self.chance(0.1):
                del s["properties"]
            if self.chance(0.2):
                s["additionalProperties"] = r.choice((True, False, {"type": "string"}))
        elif kind in ("anyOf", "oneOf"):
            s[kind] = [self.schema(depth + 1) for _ in range(r.choice((1, 2, 3)))]
        elif kind != "none":
            s["type"] = kind
        return s

    def properties(self, depth):
        names = self.r.sample(("q", "n", "unit", "Straße", "user_id", "items", "keys", "type"), self.r.choice((0, 1, 2, 4)))
        s = {"type": "object", "properties": {name: self.schema(depth) for name in names}}
        if self.chance(0.7):
            s["required"] = [name for name in names if self.chance(0.5)]
        return s

    def tool(self, i):
        f = {"name": f"tool_{i}", "description": self.text()}
        if self.chance(0.9):
            f["parameters"] = self.properties(1)
        if self.chance(0.1):
            del f["description"]
        if self.chance(0.03):
            f = {}
        if self.chance(0.2):
            f["return"] = {"type": "string"}
        if self.chance(0.2):
            f["strict"] = True
        if self.chance(0.1):
            f["response"] = {"type": "object", "description": "d"}
        return {"type": "function", "function": f}

    def defined_tool(self, i):
        """A tool with `parameter_definitions`."""
        return {"name": f"tool_{i}", "description": self.text(), "parameter_definitions": {
            name: {"type": self.r.choice(("str", "int")), "description": self.text(), "required": self.chance(0.5)}
            for name in self.r.sample(("a", "b", "ключ"), self.r.choice((0, 1, 3)))}}

    def call(self):
        r = self.r
        arguments = r.choice(({}, {"q": self.text(), "n": self.value()}, {"q": self.text()}, {"d": self.value()}, [1], None))
        if self.chance(0.2):
            arguments = json.dumps(arguments)
        f = {"name": f"tool_{r.randrange(3)}", "arguments": arguments}
        if self.tame:
            return {"id": "abcdefghi", "type": "function", "function": f}
        if self.chance(0.05):
            f["content_type"] = "code"
        if self.chance(0.05):
            return f
        c = {"id": r.choice(("abcdefghi", "abcdefghi", "call_1", "123456789")), "type": "function", "function": f}
        if self.chance(0.05):
            del c["id"]
        return c

    # ---- messages ----

    def parts(self, images=True):
        kinds = ("text", "text", "image", "image_url", "video", "audio") if images else ("text",)
        parts = []
        for kind in (self.r.choice(kinds) for _ in range(self.r.choice((0, 1, 1, 2, 3)))):
            parts.append({"type": "text", "text": self.text()} if kind == "text" else {"type": kind})
        if images and self.chance(0.2):
            parts.append(self.r.choice((self.text(), {"image": "x"}, {"output": self.text()})))
        return parts

    def content(self):
        if self.tame or self.chance(0.85):
            return self.text()
        return self.r.choice((None, self.parts(), self.parts(False), "<tool_response>\nx\n</tool_response>",
                              {"content": self.text()}, 7))

    def user(self):
        m = {"role": "user", "content": self.content()}
        if self.chance(0.05):
            m["name"] = "ann"
        return m

    def assistant(self):
        m = {"role": "assistant", "content": self.content()}
        if self.chance(0.25):
            m["reasoning_content"] = self.r.choice((None, "", self.text(), "steps\nmore"))
        if self.chance(0.05):
            m["tool_calls"] = self.r.choice((None, []))
        if self.chance(0.03):
            del m["content"]
        if self.chance(0.1):
            m["thinking"] = self.text()
        return m

    def calling(self):
        calls = [self.call() for _ in range(self.r.choice((1, 1, 1, 2, 3)) if not self.tame else 1)]
        m = self.assistant()
        m.update(tool_calls=calls, content=self.r.choice((None, "", self.text())))
        results = []
        for c in calls:
            if self.tame:
                results.append({"role": "tool", "tool_call_id": c["id"], "content": self.text()})
                continue
            result = {"role": self.r.choice(("tool",) * 6 + ("ipython", "tool_results")),
                      "tool_call_id": c.get("id") if self.chance(0.9) else "call_1", "name": "tool_0",
                      "content": self.r.choice((self.text(), json.dumps(self.value()), self.content(), [], {"a": 1}, [{"output": "x"}]))}
            if self.chance(0.1):
                del result["tool_call_id"]
            if self.chance(0.1):
                del result["name"]
            if self.chance(0.03):
                del result["content"]
            results.append(result)
        if self.chance(0.05):
            m = {"role": "tool_calls", "content": calls}
        return [m] + (results if self.chance(0.9) else [])

    def conversation(self):
        r, messages = self.r, []
        self.tame = self.chance(0.4)
        if self.chance(0.45):
            messages.append({"role": "system" if self.tame else r.choice(("system",) * 9 + ("developer",)), "content": self.content()})
            if self.chance(0.05):
                messages[0]["current_date"] = "1 Jan 2020"
        for _ in range(r.choice((0, 1, 1, 1, 2, 3, 5))):
            messages.append(self.user())
            for _ in range(r.choice((0, 0, 0, 1, 1, 2))):
                messages += self.calling()
            if self.tame or self.chance(0.9):
                messages.append(self.assistant())
        if self.chance(0.5):
            while messages and messages[-1]["role"] == "assistant":
                messages.pop()
        if self.tame:
            return messages or [self.user()]
        if self.chance(0.15):
            odd = {"role": r.choice(ROLES), "content": self.content()}
            messages.insert(r.randrange(len(messages) + 1), odd)
        if self.chance(0.05):
            r.shuffle(messages)
        return messages

    # ---- everything that a template sees ----

    def context(self, tokens):
        r, c = self.r, dict(tokens)
        c["messages"] = self.conversation()
        make = self.defined_tool if self.chance(0.15) else self.tool
        if self.chance(0.55):
            c["tools"] = r.choice((None, [])) if self.chance(0.1) else [make(i) for i in range(r.choice((1, 1, 2, 3)))]
        if self.chance(0.8):
            c["add_generation_prompt"] = self.chance(0.7)
        if self.chance(0.3):
            c["documents"] = [{"title": self.text(), "text": self.text(), "n": i} for i in range(r.choice((0, 1, 3)))]
            if self.chance(0.1):
                c["documents"].append({})
        for name, p, values in (
                ("enable_thinking", 0.3, (True, False)), ("thinking", 0.1, (True, False)),
                ("reasoning_effort", 0.2, ("low", "high")), ("clear_thinking", 0.1, (True, False)),
                ("date_string", 0.1, ("1 Jan 2020",)), ("tools_in_user_message", 0.2, (True, False)),
                ("builtin_tools", 0.15, (["browser"], ["python"], ["browser", "python", "shell"], [])),
                ("model_identity", 0.1, ("You are a test.",)), ("citation_mode", 0.2, ("accurate", "fast"))):
            if self.chance(p):
                c[name] = r.choice(values)
        if self.chance(0.05):
            c["custom_tools"] = [self.tool(9)]
        return c
