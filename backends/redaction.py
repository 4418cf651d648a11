"""What an upstream said, without what may be a credential in it.

Some vendors quote the key that they refuse, whole or partly masked. Where a word may be either, a
model's name that is lost is the smaller harm.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "[redacted]"

MIN_SECRET_CHARS: Final = 6
"""A configured key shorter than this is a placeholder: it would be found in ordinary words."""

_MIN_RUN_CHARS: Final = 16
_MOST_MIXED_CHARS: Final = 12

_R: Final = r"[A-Za-z0-9_\-*./+=~•…]"
"""What keys are made of, and masked with."""

_OF_KEYS: Final = f"{string.ascii_letters}{string.digits}_-*./+=~•…%\\"
"""The same, with what escapes some of it."""

_NO_WORD: Final = rf"(?!(?-i:[A-Z]?[a-z]+)[.,]?(?!{_R}))"
_KEYS: Final = re.compile(
    rf"""
    (?<![A-Za-z0-9]) (?:
        [sprc]k[-_] {_R}{{3,}}                           # OpenAI, and all that took its shape
      | (?: gsk | gh[opusr] | hf | r8 | fw | tgp ) _ {_R}{{8,}}
      | (?: github_pat_ | xai- (?!org\b) | pplx- | nvapi- | csk- ) {_R}{{4,}}
      | AIza {_R}{{4,}} | ya29\. {_R}+ | AQ\. {_R}{{8,}}  # Google
      | (?: AKIA | ASIA | ABSK ) {_R}{{4,}}              # Amazon
      | eyJ {_R}{{8,}}                                   # a JWT
      | (?: Bearer | Basic ) \s+ {_NO_WORD} {_R}{{4,}}
    ) (?<!\.)
    """,
    re.VERBOSE,
)
"""By how they begin."""

_NAMED: Final = re.compile(
    rf"((?:api|access|secret|subscription)[ _-]?(?:key|token)(?: provided)?|password|secret)"
    rf"([\"']?\s*(?:=|:|is:)\s*[\"'`(<]*){_NO_WORD}{_R}{{4,}}(?<!\.)",
    re.IGNORECASE,
)
"""By the words before them."""

_MASKED: Final = re.compile(rf"(?<!{_R}){_R}*(?:\*{{3,}}|•{{2,}}){_R}*(?<!\.)")
_SHORTENED: Final = re.compile(r"(?<![\w-])[\w-]+(?:\.{3}|…)[\w-]+")
"""What stars, bullets or dots leave of a key."""

_KEPT: Final = re.compile(
    rf"""
    https?:// [^\s?#"'<>]+                               # what follows the path may hold a key
  | arn:aws[\w-]* : [\w:./-]+
  | request[ _-]?id ["']? [\s:=]* ["'(]* [\w-]+
  | (?<![\w-]) (?: call | toolu | tooluse | srvtoolu | mcptoolu | chatcmpl | cmpl
      | msg | resp | rs | fc | req | gen | org | proj | file ) [-_] [\w-]+
  | (?<![\w-]) container_ \w+
  | ({_R}{{{_MIN_RUN_CHARS},}})
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Long runs, and what looks like one but has a meaning of its own to the caller.

A run is found at each of its places where nothing else is: it must not fail at its end, or all of
it is read again from every place. Here and above, what follows an open repeat must be sure to match
soon, or the repeat has a left guard.
"""

_UUID: Final = re.compile(r"[0-9a-fX]{8}(?:-[0-9a-fX]{4}){3}-[0-9a-fX]{12}", re.IGNORECASE)
_CONSTANT: Final = re.compile(r"[A-Z]{2,16}(?:_[A-Z]{2,16})+")
"""``PROHIBITED_CONTENT``: how vendors name kinds."""

_BETWEEN: Final = re.compile(r"[-_./=]")
_WORD: Final = re.compile(
    r"[A-Z]{0,5}[a-z]{2,}(?:[A-Z]{1,5}[a-z]{2,}|Of|To|In|On)*[A-Z]{0,4}"
    r"|[a-z]?[A-Z]{0,9}|[a-z]|\d{1,20}",
    re.ASCII,
)
_NUMBERED: Final = re.compile(
    r"(?:[A-Z]?[a-z]{2,12}){1,3}[A-Z]{0,3}\d{1,4}[a-z]?|\d{1,6}[A-Za-z]{1,4}", re.ASCII
)

_MOST_HALF_CHARS: Final = 200
"""As much of a word that was cut may be half a key; what is longer is no word."""


def cut(words: str, most_chars: int) -> str:
    """Return the beginning of a text that is too long, without half a key at its end."""
    if len(words) <= most_chars:
        return words
    kept = words[:most_chars]
    whole = kept.rstrip(_OF_KEYS)
    return whole if whole and len(kept) - len(whole) <= _MOST_HALF_CHARS else kept


def redacted(words: str, secrets: Iterable[str] = ()) -> str:
    """Return ``words`` with all that may be a credential replaced.

    Args:
        words: an upstream's.
        secrets: what is known to be one: the values of the headers that authenticated the request.
            They are found as they are, percent-encoded, and escaped as in JSON.
    """
    for value in secrets:
        for part in (value, value.partition(" ")[2]):  # some have the name of a scheme before them
            if len(part) >= MIN_SECRET_CHARS:
                words = words.replace(part, REDACTED)
                if "%" in words or "\\" in words:
                    words = re.sub(_spelled(part), REDACTED, words)
    words = _KEYS.sub(REDACTED, words)
    words = _NAMED.sub(rf"\1\2{REDACTED}", words)
    words = _MASKED.sub(REDACTED, words)
    words = _SHORTENED.sub(_shortened, words)
    return _KEPT.sub(_run, words)


def _spelled(secret: str) -> str:
    """Return a pattern of a secret of which some characters may be escaped, once or twice."""
    return "".join(char if char.isalnum() else _escaped(char) for char in secret)


def _escaped(char: str) -> str:
    digits = f"(?i:{ord(char):02x})"
    return rf"(?:\\{{0,3}}{re.escape(char)}|%(?:25)?{digits}|\\{{1,3}}u00{digits})"


def _shortened(found: re.Match[str]) -> str:
    """Replace the two ends of a key; a pause between words is none."""
    return REDACTED if any(char.isdecimal() for char in found[0]) else found[0]


def _run(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]
    run = found[1].rstrip(".")  # they end a sentence
    if len(run) < _MIN_RUN_CHARS or _is_readable(run):
        return found[0]
    return REDACTED + found[1][len(run) :]


def _is_readable(run: str) -> bool:
    """Say whether a long run is made of words and numbers, as names, paths and dates are."""
    if _CONSTANT.fullmatch(run):
        return True
    mixed = 0
    for piece in _BETWEEN.split(_UUID.sub("", run)):
        if _WORD.fullmatch(piece) or _NUMBERED.fullmatch(piece):
            continue
        mixed += len(piece)
        if len(piece) > 6:
            return False
    return mixed <= _MOST_MIXED_CHARS
