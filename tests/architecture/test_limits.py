"""House rules of size and state, for Python outside tests.

An exception stands here, with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.house import FunctionNode, Source, named, source, sources

MOST_LINES = 400
MOST_FUNCTION_LINES = 70
MOST_METHODS = 20
MOST_PARAMETERS = 6

EXCEPTIONS: dict[str, str] = {
    "gateway/cli/keys.py: create takes 7 parameters": "click gives a command one per option",
}
"""``path: fault`` as a rule reports it, and why it stands all the same."""

CONTAINERS = frozenset(
    {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter"}
    | {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}
)
WRITES = frozenset(
    {"append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "add", "discard"}
    | {"update", "setdefault", "popitem", "appendleft", "popleft", "extendleft", "__setitem__"}
)


def long_files(file: Source) -> Iterator[str]:
    """Files of at most 400 lines."""
    count = len(file.text.splitlines())
    if count > MOST_LINES:
        yield f"{count} lines"


def long_functions(file: Source) -> Iterator[str]:
    """Functions of at most 70 lines."""
    for name, node in named(file.tree):
        if isinstance(node, FunctionNode):
            assert node.end_lineno is not None
            count = node.end_lineno - node.lineno + 1
            if count > MOST_FUNCTION_LINES:
                yield f"{name} has {count} lines"


def large_classes(file: Source) -> Iterator[str]:
    """Classes of at most 20 methods."""
    for name, node in named(file.tree):
        if isinstance(node, ast.ClassDef):
            count = sum(isinstance(entry, FunctionNode) for entry in node.body)
            if count > MOST_METHODS:
                yield f"{name} has {count} methods"


def many_parameters(file: Source) -> Iterator[str]:
    """At most 6 parameters, `self` and `cls` not counted."""
    for name, node in named(file.tree):
        if isinstance(node, FunctionNode):
            given = node.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
            count = len(names) - (bool(names) and names[0] in ("self", "cls"))
            if count > MOST_PARAMETERS:
                yield f"{name} takes {count} parameters"


def global_statements(file: Source) -> Iterator[str]:
    """No `global`: what changes belongs to an object that somebody built and passed on."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}"


def written_containers(file: Source) -> Iterator[str]:
    """No container of a module is written to: it would be state that nobody owns."""
    names = {name for statement in file.tree.body for name in _containers(statement)}
    for node in ast.walk(file.tree):
        if (written := _written(node)) in names:
            yield f"{written} is written to in line {getattr(node, 'lineno', 0)}"


def _containers(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return
    call = value.func if isinstance(value, ast.Call) else None
    made = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
    literal = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    if isinstance(value, literal) or made in CONTAINERS:
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _written(node: ast.AST) -> str | None:
    """Return the name of what a node writes into, if it does."""
    spot: ast.AST | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        spot = node.func.value if node.func.attr in WRITES else None
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        spot = node.value
    elif isinstance(node, ast.AugAssign):
        spot = node.target
    return spot.id if isinstance(spot, ast.Name) else None


Rule = Callable[[Source], Iterator[str]]
RULES: dict[Rule, str] = {
    long_files: "x = 1\n" * 401,
    long_functions: "class A:\n    async def f(self):\n" + "        x = 1\n" * 70,
    large_classes: "class A:\n" + "".join(f"    def f{n}(self): ...\n" for n in range(21)),
    many_parameters: "class A:\n    def f(self, a, b, /, c, *d, e, f, **g): ...\n",
    global_statements: "def f():\n    global x\n    x = 1\n",
    written_containers: "import collections\nx: dict = {}\ndef f():\n    x['a'] = 1\n",
}
"""Each rule, and the smallest file that breaks it."""

KEPT = [
    "x = 1\n" * 400,
    "def f(self, a, b, c, d, e, *, f): ...\n",
    "class A:\n" + "".join(f"    def f{n}(self): ...\n" for n in range(20)),
    "X = {'a': 1}\ndef f():\n    y = dict(X)\n    y['a'] = 2\n    y.pop('a')\n    return X['a']\n",
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rule(rule: Rule) -> None:
    """Every file of the four packages, but for the exceptions that stand here."""
    faults = {f"{file.path}: {fault}" for file in sources() for fault in rule(file)}
    assert sorted(faults - set(EXCEPTIONS)) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_finds_what_breaks_it(rule: Rule) -> None:
    """A rule that finds nothing anywhere would prove nothing."""
    assert list(rule(source("broken.py", RULES[rule])))
    for text in KEPT:
        assert list(rule(source("kept.py", text))) == []


@pytest.mark.parametrize(
    "write",
    ["x.append(1)", "x += [1]", "del x[0]", "x[0]: int = 1", "x[:] = []", "x.setdefault(1, 2)"],
)
@pytest.mark.parametrize("made", ["[]", "dict()", "collections.deque()", "{n for n in range(3)}"])
def test_every_way_to_write_into_a_module_is_seen(made: str, write: str) -> None:
    """By method, by index, in place."""
    text = f"import collections\nx = {made}\ndef f():\n    {write}\n"
    assert list(written_containers(source("broken.py", text)))


def test_no_exception_outlives_its_reason() -> None:
    """An exception that nothing needs any more is taken out."""
    faults = {f"{f.path}: {fault}" for f in sources() for rule in RULES for fault in rule(f)}
    assert set(EXCEPTIONS) <= faults
