"""What cannot fit the window is refused before the costly part."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from local_engine.errors import RequestRefused
from local_engine.loader import LoadedModel
from local_engine.params import Message
from local_engine.prompt import PromptReader

WINDOW = 256
LONGEST = len("<|im_start|>") + 1


def forbid(*_: object, **__: object) -> str:
    """Stand in for what must not be called."""
    raise AssertionError("the template was run")


@pytest.mark.parametrize("content", ["x" * (WINDOW * LONGEST + 1), "ü" * (WINDOW * LONGEST)])
def test_a_text_of_more_bytes_than_the_window_can_hold_is_refused_unread(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """Counting bytes is cheap; templates and tokenizers take seconds for as much."""
    monkeypatch.setattr(tiny.tokenizer, "apply_chat_template", forbid)
    reader = PromptReader(tiny.tokenizer, WINDOW)
    with pytest.raises(RequestRefused) as caught:
        reader.check_size([Message("system", ""), Message("user", content)])
    refused = caught.value
    assert (refused.status, refused.code) == (400, "context_length_exceeded")
    assert refused.param == "messages"


def test_more_messages_than_the_window_has_tokens_are_refused_unread(tiny: LoadedModel) -> None:
    """Each takes one at least, also without a word in it."""
    reader = PromptReader(tiny.tokenizer, WINDOW)
    reader.check_size([Message("user", "")] * WINDOW)
    with pytest.raises(RequestRefused, match="257 messages") as caught:
        reader.check_size([Message("user", "")] * (WINDOW + 1))
    assert caught.value.code == "context_length_exceeded"


def test_what_a_template_makes_too_long_is_refused_before_tokenizing(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template may write much for each message."""
    monkeypatch.setattr(
        tiny.tokenizer, "apply_chat_template", lambda *_, **__: "x" * (WINDOW * LONGEST + 1)
    )
    reader = PromptReader(tiny.tokenizer, WINDOW)
    with pytest.raises(RequestRefused) as caught:
        reader.read([Message("user", "hi")])
    assert caught.value.code == "context_length_exceeded"


def test_a_text_of_the_longest_tokens_passes_the_check() -> None:
    """The bound is counted in the bytes of the text, not in those of the vocabulary's spelling."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {char: i for i, char in enumerate([*alphabet, "ĠĠ", "ĠĠĠĠ"])}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[("Ġ", "Ġ"), ("ĠĠ", "ĠĠ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template="{{ messages[0].content }}"
    )
    reader = PromptReader(wrapped, 10)
    message = Message("user", " " * 40)
    reader.check_size([message])
    assert len(reader.read([message])) == 10
    with pytest.raises(RequestRefused):
        reader.check_size([Message("user", " " * 51)])


def test_several_threads_read_the_same_tokens(tiny: LoadedModel) -> None:
    """One reader serves them all."""
    reader = PromptReader(tiny.tokenizer, WINDOW)
    messages = [[Message("user", f"{i}" * 50)] for i in range(8)]
    expected = [reader.read(each) for each in messages]
    found: list[Any] = [None] * 8

    def read(i: int) -> None:
        found[i] = [reader.read(messages[i]) for _ in range(20)]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[tokens] * 20 for tokens in expected]
