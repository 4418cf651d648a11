"""Who may know a vendor, start a task, or read the environment. Each list gives the reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.house import FunctionNode, Source, source, sources

VENDORS = {
    "ai21", "alibaba", "anthropic", "avian", "azure", "baseten", "bedrock", "cerebras", "claude",
    "cloudflare", "cohere", "databricks", "deepinfra", "deepseek", "featherless", "fireworks",
    "gemini", "groq", "huggingface", "hyperbolic", "inflection", "litellm", "llamacpp", "minimax",
    "mistral", "moonshot", "nebius", "novita", "ollama", "openrouter", "perplexity", "portkey",
    "qwen", "sagemaker", "sambanova", "snowflake", "tgi", "together", "vertex", "vllm", "watsonx",
    "xai", "zai", "zhipu",
}  # fmt: skip
"""OpenAI is not here: it is the name of a dialect. Nor are those that are words of programming."""

DIALECTS: dict[tuple[str, str], str] = {
    ("local_engine/metrics.py", "vllm"): "metric names of vLLM, so that its dashboards fit",
}
"""Names of dialects and compatible headers: file, name, and why it must be written there."""

TASK_OWNERS: dict[str, str] = {
    "gateway/background.py": "a worker's tasks: named, counted, awaited when it drains",
    "gateway/supervisor/living.py": "restarts children; every task is kept until it ended",
    "policies/ledger/calls.py": "writes coalesced calls; ended by aclose",
    "backends/token_auth.py": "one renewal of a token; those who need it await it",
    "local_engine/chat.py": "an answer and the watch for its reader, both awaited there",
    "local_engine/process.py": "serving and draining, awaited before the process ends",
}

ENVIRONMENT: dict[str, str] = {
    "gateway/config.py": "the only reader of the gateway's environment",
    "gateway/tokenizer/encodings.py": "tells tiktoken where its tables lie; it has no other way",
    "gateway/cli/": "commands are the user's edge",
    "local_engine/__main__.py": "a process of its own: tells its libraries to stay offline",
    "local_engine/convert.py": "a process of its own: tells its libraries to stay offline",
}

SPAWNERS = frozenset({"create_task", "ensure_future"})


def vendors(file: Source) -> Iterator[str]:
    """Yield vendors named in identifiers and strings; docstrings and comments may say anything."""
    prose = {id(doc) for node in ast.walk(file.tree) if (doc := _docstring(node)) is not None}
    for node in ast.walk(file.tree):
        for words in _words(node, prose):
            yield from VENDORS & set(re.split(r"[^a-z0-9]+", words.lower()))


def _words(node: ast.AST, prose: set[int]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
        yield node.value
    for name in ("id", "attr", "name", "arg", "module"):
        if isinstance(word := getattr(node, name, None), str):
            yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word)


def _docstring(node: ast.AST) -> ast.Constant | None:
    """Return a string that stands as a statement of its own: a docstring of whatever is before."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value
    return None


def spawns(file: Source) -> Iterator[str]:
    """Yield calls that start a task which somebody must own."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
            if called in SPAWNERS and not _in_group(node):
                yield called


def _in_group(call: ast.Call) -> bool:
    """A task group owns its tasks: it waits for them where it was opened."""
    spot = getattr(call.func, "value", None)
    return isinstance(spot, ast.Name) and spot.id in ("group", "tasks")


def environment(file: Source) -> Iterator[str]:
    """Yield uses of the environment."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            yield node.attr
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (a.name for a in node.names if a.name in ("environ", "environb", "getenv"))


def test_no_vendor_is_known_outside_the_adapters() -> None:
    """What differs between vendors is data or an adapter, never a branch."""
    outside = (file for file in sources() if not file.path.startswith("backends/"))
    found = {(file.path, vendor) for file in outside for vendor in vendors(file)}
    assert found == set(DIALECTS)


def test_tasks_are_started_only_by_those_who_own_them() -> None:
    """A task that nobody awaits fails unseen and outlives a drain."""
    assert {file.path for file in sources() if any(spawns(file))} == set(TASK_OWNERS)


def test_the_environment_is_read_in_one_place() -> None:
    """What a worker does is decided by its settings."""
    found = {file.path for file in sources() if any(environment(file))}
    strangers = {path for path in found if not path.startswith(tuple(ENVIRONMENT))}
    assert strangers == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("if provider == 'Mistral': pass", {"mistral"}),
        ("is_groq = True", {"groq"}),
        ("class AnthropicThing: pass", {"anthropic"}),
        ("import together", {"together"}),
        ("from vendors.cohere import x", {"cohere"}),
        ("def f(deepseek_mode): pass", {"deepseek"}),
        ("x = f'{y}-gemini'", {"gemini"}),
        ("'''As at Mistral.'''\nX = 1\n'''Bedrock has it.'''\n# vertex", set()),
        ("x = 'altogether'", set()),
        ("x = 'openai'", set()),
    ],
)
def test_a_vendor_is_found_wherever_code_names_it(text: str, found: set[str]) -> None:
    """In strings and identifiers, not in prose, not inside other words."""
    assert set(vendors(source("x.py", text))) == found


@pytest.mark.parametrize(
    "text",
    ["asyncio.create_task(f())", "loop.create_task(f())", "asyncio.ensure_future(f())",
     "get_running_loop().create_task(f())", "create_task(f())"],
)  # fmt: skip
def test_a_started_task_is_found(text: str) -> None:
    """However the loop was come by."""
    assert any(spawns(source("x.py", text)))


@pytest.mark.parametrize(
    "text", ["os.environ['A']", "os.getenv('A')", "from os import environ", "dict(os.environ)"]
)
def test_a_use_of_the_environment_is_found(text: str) -> None:
    """Reading and writing."""
    assert any(environment(source("x.py", text)))


def test_every_module_and_public_name_says_what_it_is() -> None:
    """A docstring for each module, and for each public function and class."""
    silent = [file.path for file in sources() if ast.get_docstring(file.tree) is None]
    assert silent == []
    for file in sources():
        for node in file.tree.body:
            if isinstance(node, FunctionNode | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{file.path}: {node.name}"
