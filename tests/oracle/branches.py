# SPDX-License-Identifier: Apache-2.0
"""Which branches of a Jinja template a rendering takes.

The template's tree is rebuilt with probes around what decides: the test of each `if`, inline `if`
and loop filter, each operand of `and` and `or` (true, false), each loop (some items, none), the
body of each macro, and each `{{ }}` (evaluated without an error). A probe gives back what it is
given, so that the rendering stays what it was.
"""
from jinja2 import nodes
from jinja2.runtime import Undefined
from jinja2.visitor import NodeTransformer

PROBE = "__probe__"
OPERATORS = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}


def source(n):
    """An expression as text, for the name of a branch."""
    if isinstance(n, nodes.Const):
        return repr(n.value)
    if isinstance(n, nodes.Name):
        return n.name
    if isinstance(n, nodes.Getattr):
        return f"{source(n.node)}.{n.attr}"
    if isinstance(n, nodes.Getitem):
        return f"{source(n.node)}[{source(n.arg)}]"
    if isinstance(n, nodes.Slice):
        return ":".join("" if part is None else source(part) for part in (n.start, n.stop, n.step))
    if isinstance(n, nodes.Not):
        return f"not {source(n.node)}"
    if isinstance(n, (nodes.And, nodes.Or)):
        return f"({source(n.left)} {type(n).__name__.lower()} {source(n.right)})"
    if isinstance(n, nodes.Compare):
        return source(n.expr) + "".join(f" {OPERATORS[o.op]} {source(o.expr)}" for o in n.ops)
    if isinstance(n, (nodes.Test, nodes.Filter)):
        arguments = ", ".join(source(a) for a in n.args or ())
        sign = " is " if isinstance(n, nodes.Test) else "|"
        return f"{source(n.node) if n.node else ''}{sign}{n.name}" + (f"({arguments})" if arguments else "")
    if isinstance(n, nodes.Call):
        return f"{source(n.node)}({', '.join(source(a) for a in n.args)})"
    if isinstance(n, nodes.BinExpr):
        return f"{source(n.left)} {n.operator} {source(n.right)}"
    if isinstance(n, nodes.CondExpr):
        return f"{source(n.expr1)} if {source(n.test)}"
    return type(n).__name__


class Rebuilder(NodeTransformer):
    def __init__(self, branches):
        self.branches = branches

    def probe(self, kind, n, what):
        number = self.branches.add(kind, what)
        name = nodes.Name(PROBE, "load", lineno=n.lineno)
        call = nodes.Call(name, [nodes.Const(number), nodes.Const(kind), n], [], None, None)
        return call.set_lineno(n.lineno)

    def decision(self, n):
        if isinstance(n, (nodes.Const, nodes.List, nodes.Dict)):  # no decision
            return self.visit(n)
        what = f"line {n.lineno}: {source(n)}"
        return self.probe("decides", self.visit(n), what)

    def visit_If(self, n):
        n.test, test = nodes.Const(True), self.decision(n.test)
        self.generic_visit(n)
        n.test = test
        return n

    def visit_CondExpr(self, n):
        n.test, test = nodes.Const(True), self.decision(n.test)
        self.generic_visit(n)
        n.test = test
        return n

    def visit_For(self, n):
        what = f"line {n.lineno}: for in {source(n.iter)}"
        iterated = self.probe("loops", self.visit(n.iter), what)
        test = self.decision(n.test) if n.test is not None else None
        n.iter, n.test = nodes.Const(()), None
        self.generic_visit(n)
        n.iter, n.test = iterated, test
        return n

    def visit_And(self, n):
        n.left, n.right = self.decision(n.left), self.decision(n.right)
        return n

    visit_Or = visit_And

    def visit_Macro(self, n):
        self.generic_visit(n)
        mark = self.probe("passes", nodes.Const("", lineno=n.lineno), f"line {n.lineno}: macro {n.name}")
        n.body.insert(0, nodes.Output([mark], lineno=n.lineno))
        return n

    def visit_Output(self, n):
        for i, e in enumerate(n.nodes):
            raises = isinstance(e, nodes.Call) and source(e.node) == "raise_exception"
            if isinstance(e, nodes.TemplateData) or raises:
                continue
            what = f"line {e.lineno}: {{{{ {source(e)[:60]} }}}}"
            n.nodes[i] = self.probe("passes", self.visit(e), what)
        return n


class Branches:
    """names: every branch; reached: the numbers of those that were taken."""

    def __init__(self, env, text):
        self.names, self.first, self.reached, self.used = [], [], set(), {}
        tree = Rebuilder(self).visit(env.parse(text))
        self.template = env.from_string(tree)
        self.template.globals = {**env.globals, PROBE: self.seen}

    def add(self, kind, what):
        self.used[what] = self.used.get(what, 0) + 1
        if self.used[what] > 1:
            what += f" #{self.used[what]}"
        self.first.append(len(self.names))
        outcomes = {"decides": (" true", " false"), "loops": (" some", " none"), "passes": ("",)}[kind]
        self.names += [what + outcome for outcome in outcomes]
        return len(self.first) - 1

    def seen(self, number, kind, value):
        at = self.first[number]
        if kind == "loops":
            if not hasattr(value, "__len__") and hasattr(value, "__iter__"):
                value = list(value)
            at += 0 if isinstance(value, Undefined) is False and hasattr(value, "__len__") and len(value) else 1
        elif kind == "decides":
            at += 0 if value else 1
        self.reached.add(at)
        return value

    def take(self, context):
        """Renders. Did that reach a branch for the first time, and did the template take it?"""
        before, accepted = len(self.reached), True
        try:
            self.template.render(**context)
        except Exception:  # what it refuses is part of what it does
            accepted = False
        return len(self.reached) > before, accepted
