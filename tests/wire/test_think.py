"""Reasoning between tags at the start of a text is told from the text, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.types import ReasoningDelta, TextDelta
from backends.wire.openai_chat import StreamDecoder
from backends.wire.think import ThinkTags
from tests.upstream import DONE, choice, chunk, data, delta


def told(*pieces: str) -> tuple[str, str]:
    """Return the reasoning and the text of pieces."""
    tags = ThinkTags()
    found = [entry for piece in pieces for entry in tags.feed(piece)] + tags.end()
    assert all(text for _, text in found)
    return "".join(t for is_thought, t in found if is_thought), "".join(
        t for is_thought, t in found if not is_thought
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>hm</think>so", ("hm", "so")),
        ("\n<think>\nhm\n</think>\n\nso", ("\nhm\n", "\n\nso")),
        ("<think></think>so", ("", "so")),
        ("<think>cut", ("cut", "")),
        ("<think>a </thi", ("a </thi", "")),
        ("<thi", ("", "<thi")),
        ("<thin ice", ("", "<thin ice")),
        ("so <think>hm</think>", ("", "so <think>hm</think>")),
        ("<think>a</think>b<think>c</think>", ("a", "b<think>c</think>")),
        ("  so", ("", "  so")),
        ("", ("", "")),
    ],
)
@given(st.data())
def test_only_tags_at_the_start_count(
    text: str, expected: tuple[str, str], data: st.DataObject
) -> None:
    """Later ones are words of the answer; nothing is lost."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert told(*(piece for piece in pieces if piece)) == expected


def test_the_decoder_reads_tags_only_where_the_vendor_has_them() -> None:
    """What was held back goes out before the choice ends."""
    body = b"".join(
        data(chunk(choice(content=text))) for text in ("<th", "ink>hm</", "think>so", "<")
    )
    body += data(chunk(choice(0, "stop"))) + DONE
    events = StreamDecoder(think_tags=True).feed(body)
    assert [e for e in events if isinstance(e, ReasoningDelta)] == [ReasoningDelta(0, "hm")]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "so<"
    assert not any(isinstance(e, ReasoningDelta) for e in StreamDecoder().feed(body))
    cut = StreamDecoder(think_tags=True)
    held = cut.feed(data(delta("<thi")) + data(chunk(choice(0, "length"))) + DONE)
    assert TextDelta(0, "<thi") in held
