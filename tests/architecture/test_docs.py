"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.house import PACKAGES, ROOT

PLACES = (*PACKAGES, "tests", "deploy", "docs", "requirements")
_CODE = re.compile(r"`([^`\s]+)`")
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)")
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Return every page that is written for readers."""
    pages = [*ROOT.glob("*.md")]
    for place in ("docs", "deploy", *PACKAGES):
        pages += (ROOT / place).rglob("*.md")
    return sorted(pages)


def names(text: str) -> set[str]:
    """Return paths that a text names as code; ``NAME`` stands for one that readers choose."""
    found = (name.rstrip("/:,.") for name in _CODE.findall(_FENCED.sub("", text)))
    return {
        name
        for name in found
        if name.split("/")[0] in PLACES
        and "/" in name
        and "NAME" not in name
        and re.fullmatch(r"[\w./-]+", name)
    }


def links(text: str) -> set[str]:
    """Return the targets of links that stay in this repository."""
    return set(_LINK.findall(_FENCED.sub("", text)))


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    """A reader who follows it finds it."""
    text = page.read_text(encoding="utf-8")
    missing = {name for name in names(text) if not (ROOT / name).exists()}
    missing |= {link for link in links(text) if not (page.parent / link).exists()}
    assert missing == set()


def test_paths_are_found_in_prose_and_links() -> None:
    """Not in samples, not on the web, not what only looks like one."""
    text = "See `gateway/app.py`, `backends/NAME.py`, `policies/*.py`, `a/b`,\n"
    text += "[x](docs/api.md#y) and [z](https://x/y).\n"
    text += "```\n`gateway/none.py`\n```\n"
    assert names(text) == {"gateway/app.py"}
    assert links(text) == {"docs/api.md"}
