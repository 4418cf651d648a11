"""Text comes out whole, once, and without a stop string, wherever tokens cut it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from local_engine.loader import LoadedModel
from local_engine.text import Detokenizer, StopFilter, TextOut

steady = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


SAMPLES = [
    "plain words, and more.",
    "naïve café — “quotes”",
    "日本語のテキストと한국어",
    "👩‍👩‍👧‍👦 family, 👍🏽 thumb, 🇩🇪 flag",
    "e\u0301 and z\u0351\u036b",
    "tabs\tand\nlines\r\n  spaces ",
]


def decode_by_token(tokenizer: Tokenizer, token_ids: list[int]) -> list[str]:
    """Return the pieces that token-by-token decoding gives."""
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(token_id) for token_id in token_ids]
    return [*pieces, detokenizer.flush()]


@pytest.mark.parametrize("text", SAMPLES)
def test_decoding_by_token_is_decoding_at_once(byte_tokenizer: Tokenizer, text: str) -> None:
    """Every byte is a token of its own here, so each character is cut at each place."""
    token_ids = byte_tokenizer.encode(text).ids
    pieces = decode_by_token(byte_tokenizer, token_ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@steady
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_any_text_survives_its_bytes(byte_tokenizer: Tokenizer, text: str) -> None:
    """No character of any script is lost or cut."""
    token_ids = byte_tokenizer.encode(text).ids
    assert "".join(decode_by_token(byte_tokenizer, token_ids)) == text


@steady
@given(token_ids=st.lists(st.integers(0, 257), max_size=24))
def test_any_bytes_decode_as_they_do_at_once(
    byte_tokenizer: Tokenizer, token_ids: list[int]
) -> None:
    """Bytes that are no character come as the tokenizer has them; an unfinished end is dropped."""
    at_once = byte_tokenizer.decode(token_ids, skip_special_tokens=True)
    assert "".join(decode_by_token(byte_tokenizer, token_ids)) == at_once.rstrip("\ufffd")


@pytest.mark.parametrize("text", SAMPLES)
def test_the_real_tokenizer_decodes_by_token_as_at_once(smol: LoadedModel, text: str) -> None:
    """The same with merges, as the shipped model has them."""
    tokenizer = smol.tokenizer.backend_tokenizer
    token_ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(decode_by_token(tokenizer, token_ids)) == text


def test_a_cut_character_is_held_until_it_is_whole(byte_tokenizer: Tokenizer) -> None:
    """Three bytes of four show nothing."""
    pieces = decode_by_token(byte_tokenizer, byte_tokenizer.encode("a🙂b").ids)
    assert pieces == ["a", "", "", "", "🙂", "b", ""]


def test_a_stream_that_loses_its_place_goes_on() -> None:
    """A decoder may change earlier text when more comes; the stream recovers from that."""
    vocab = {"<unk>": 0, "<0xE3>": 1, "<0x81>": 2, "<0x82>": 3, "a": 4, "b": 5}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    for token_ids in ([4, 1, 4, 1, 2, 3, 5], [1, 4, 2, 1, 2, 3], [4, 1, 2, 3, 1, 1, 5, 4]):
        text = "".join(decode_by_token(tokenizer, token_ids))
        assert [char for char in text if char in "ab"] == [
            "ab"[token_id - 4] for token_id in token_ids if token_id > 3
        ]


def cut_at_stop(text: str, stop: tuple[str, ...]) -> str:
    """Say naively what is visible: up to the stop string that is complete first."""
    for end in range(len(text) + 1):
        matches = [string for string in stop if text[:end].endswith(string)]
        if matches:
            return text[: end - max(map(len, matches))]
    return text


def filter_pieces(pieces: list[str], stop: tuple[str, ...]) -> str:
    """Return what a filter lets through."""
    stops, shown = StopFilter(stop), ""
    for text in pieces:
        piece = stops.push(text)
        shown += piece.text
        if piece.stopped:
            return shown
    return shown + stops.flush()


_LETTERS = st.text("ab ", max_size=14)
_STOPS = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=4).map(tuple)


@steady
@given(text=_LETTERS, stop=_STOPS, cuts=st.sets(st.integers(0, 14)))
def test_stop_strings_work_wherever_the_text_is_cut(
    text: str, stop: tuple[str, ...], cuts: set[int]
) -> None:
    """The cut into pieces changes nothing of what is shown."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert filter_pieces(pieces, stop) == cut_at_stop(text, stop)


@steady
@given(text=_LETTERS, stop=_STOPS)
def test_only_the_beginning_of_a_stop_string_is_held(text: str, stop: tuple[str, ...]) -> None:
    """Text that cannot become a stop string is never late."""
    stops, shown, seen = StopFilter(stop), "", ""
    for char in text:
        seen += char
        piece = stops.push(char)
        shown += piece.text
        if piece.stopped:
            return
        held = seen[len(shown) :]
        assert not held or any(string.startswith(held) for string in stop)


@pytest.mark.parametrize("stop", ["🙂", "é", "日本", "<end>"])
def test_a_stop_string_of_many_bytes_is_never_shown(byte_tokenizer: Tokenizer, stop: str) -> None:
    """Cut at every byte, nothing of it gets out."""
    out, shown = TextOut(byte_tokenizer, (stop,)), ""
    for token_id in byte_tokenizer.encode(f"before {stop} after").ids:
        piece = out.push(token_id)
        shown += piece.text
        if piece.stopped:
            break
    assert shown == "before "


def test_held_text_comes_out_at_the_end(byte_tokenizer: Tokenizer) -> None:
    """A tail that began like a stop string was none."""
    out = TextOut(byte_tokenizer, ("<end>",))
    shown = "".join(out.push(i).text for i in byte_tokenizer.encode("a <en").ids)
    assert (shown, out.flush().text) == ("a ", "<en")
