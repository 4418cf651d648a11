"""From token ids to text that may be shown: whole characters only, and nothing of a stop string.

What is shown does not depend on where the tokens happen to cut the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers.decoders import DecodeStream

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_INVALID_PREFIX = "Invalid prefix encountered"
_CONTEXT_TOKENS = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """New visible text, and whether a stop string ended it."""

    text: str
    stopped: bool = False


class TextOut:
    """One request's text: tokens in, visible pieces out.

    Args:
        tokenizer: Used for decoding only; must not be changed by another thread meanwhile.
        stop: Strings that end the text.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        """Start with no text."""
        self._detokenizer = Detokenizer(tokenizer)
        self._filter = StopFilter(stop)

    def push(self, token_id: int) -> Piece:
        """Take the next token. After a piece that stopped, nothing more may be pushed."""
        return self._filter.push(self._detokenizer.push(token_id))

    def flush(self) -> Piece:
        """Give out what was held, at the end of the tokens."""
        last = self._filter.push(self._detokenizer.flush())
        return last if last.stopped else Piece(last.text + self._filter.flush())


class Detokenizer:
    """Decodes token by token, into the same text as decoding all at once.

    A character is given out once all its bytes are there. Bytes at the very end that never became a
    character are dropped; bytes in the middle that cannot be one come as U+FFFD, as the tokenizer
    decodes them. Special tokens have no text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start with no tokens."""
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._context: list[int] = []  # the last tokens whose text is out
        self._pending: list[int] = []  # tokens since then

    def push(self, token_id: int) -> str:
        """Take a token and return the text that became certain, perhaps none."""
        self._pending.append(token_id)
        try:
            text = self._stream.step(self._tokenizer, token_id)
        except Exception as error:
            if _INVALID_PREFIX not in str(error):
                raise
            text = self._recover()
        if not text:
            return ""
        self._context = (self._context + self._pending)[-_CONTEXT_TOKENS:]
        self._pending = []
        return text

    def flush(self) -> str:
        """Return the text of the tokens still pending, without a cut character at its end."""
        pending, self._pending = self._pending, []
        return self._decode_after_context(pending).rstrip(_REPLACEMENT) if pending else ""

    def _recover(self) -> str:
        """Go on after the stream lost its place (vllm-project/vllm#17448).

        `DecodeStream` expects that more tokens never change the text of earlier ones; some decoders
        break that. A fresh stream starts from the last tokens instead, and what they add is decoded
        apart.
        """
        text = self._decode_after_context(self._pending)
        self._stream = DecodeStream(ids=self._context + self._pending, skip_special_tokens=True)
        return text

    def _decode_after_context(self, token_ids: list[int]) -> str:
        """Return what `token_ids` add to the text of the context before them."""
        before = self._decode(self._context)
        whole = self._decode(self._context + token_ids)
        return whole[len(before) :] if whole.startswith(before) else self._decode(token_ids)

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)


class StopFilter:
    """Passes text on until a stop string, of which it lets nothing through.

    The stop string that is complete first ends the text; of two complete at the same place, the
    longer one. Only a tail that may yet become a stop string is held back, so text far from one is
    never late.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        """Start with nothing held."""
        self._stop = stop
        self._longest_held = max((len(string) for string in stop), default=1) - 1
        self._held = ""

    def push(self, text: str) -> Piece:
        """Take more text and return what may be shown of it."""
        text = self._held + text
        matches = [
            (start + len(string), start)
            for string in self._stop
            if (start := text.find(string)) >= 0
        ]
        if matches:
            self._held = ""
            return Piece(text[: min(matches)[1]], stopped=True)
        cut = len(text) - self._count_held(text)
        self._held = text[cut:]
        return Piece(text[:cut])

    def flush(self) -> str:
        """Return the held tail: no more text comes, so it is no stop string."""
        held, self._held = self._held, ""
        return held

    def _count_held(self, text: str) -> int:
        """Return the length of the longest tail of `text` that begins some stop string."""
        for length in range(min(len(text), self._longest_held), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._stop):
                return length
        return 0
