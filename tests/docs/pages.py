"""Reads the pages: fenced samples, tables and the words in backticks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    "gateway/README.md",
    "backends/README.md",
    "policies/README.md",
    "deploy/README.md",
    *(f"deploy/adr/{path.name}" for path in sorted((ROOT / "deploy/adr").glob("*.md"))),
)

_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.M | re.S
)
_ROW = re.compile(r"^\|(.+)\|\s*$", re.M)


@dataclass(frozen=True, slots=True)
class Sample:
    """One fenced block."""

    page: str
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        """Name it in a test's id."""
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """Return a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def samples(page: str) -> list[Sample]:
    """Return a page's fenced blocks in order."""
    text = read(page)
    return [
        Sample(page, text.count("\n", 0, found.start()) + 1, found["info"].strip(), found["text"])
        for found in _FENCE.finditer(text)
    ]


def of_kind(info: str) -> list[Sample]:
    """Return every sample with an info string."""
    return [sample for page in PAGES for sample in samples(page) if sample.info == info]


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def section(page: str, heading: str) -> str:
    """Return the text from a heading to the next one of any level."""
    _, found, rest = prose(page).partition(f"{heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.M)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row, header and ruler left out."""
    found = [[cell.strip() for cell in row[1].split("|")] for row in _ROW.finditer(text)]
    rulers = [number for number, row in enumerate(found) if set("".join(row)) <= set("-: ")]
    left_out = {*rulers, *(number - 1 for number in rulers)}
    return [row for number, row in enumerate(found) if number not in left_out]


def words(text: str) -> set[str]:
    """Return what stands in backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))
