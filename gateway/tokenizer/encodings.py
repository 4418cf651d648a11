"""Encodings by name, loaded on first need: tiktoken's, and Hugging Face tokenizers from a file.

tiktoken would fetch its rank tables; those of ``bpe-openai`` (MIT, GitHub) are put where it looks
for them, and it checks their SHA-256 itself. A name such as ``file:/models/x/tokenizer.json`` needs
the ``local`` extra, which has Hugging Face's tokenizers.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, TypeAlias

Count: TypeAlias = Callable[[str], int]

OFFLINE: Final = ("cl100k_base", "o200k_base", "o200k_harmony")
"""The names of tiktoken that work without a network."""

MOST_LOADED: Final = 8
_ADDRESS: Final = "https://openaipublic.blob.core.windows.net/encodings/"
_TABLES: Final = ("cl100k_base", "o200k_base")


def check_name(name: str) -> None:
    """Check an encoding's name, without loading anything.

    Raises:
        ValueError: saying what may be written.
    """
    if name in OFFLINE or (name.startswith("file:") and name.endswith("tokenizer.json")):
        return
    known = ", ".join(OFFLINE)
    raise ValueError(f"write one of {known}, or file:PATH of a tokenizer.json")


def check_present(name: str) -> None:
    """Check that an encoding's file and library are there, without loading them.

    Raises:
        OSError, ImportError: saying which is not, and what to do.
    """
    if name.startswith("file:"):
        if not Path(name.removeprefix("file:")).is_file():
            raise FileNotFoundError(f"{name.removeprefix('file:')} is not there")
        needed, package = ["tokenizers"], "tollway[local]"
    else:
        needed, package = ["tiktoken", "bpe_openai"], "tollway"
    if any(find_spec(library) is None for library in needed):
        raise ImportError(f"its library is missing; pip install '{package}'")


@lru_cache(maxsize=MOST_LOADED)
def load(name: str) -> Count:
    """Return how to count a text's tokens; seconds on first need.

    Raises:
        ValueError: the name is no encoding.
        OSError, ImportError: its file or its library is not there.
    """
    check_name(name)
    if name.startswith("file:"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(name.removeprefix("file:"))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    os.environ["TIKTOKEN_CACHE_DIR"] = str(_tables())
    import tiktoken

    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


@lru_cache(maxsize=1)
def _tables() -> Path:
    """Unpack the rank tables under the names that tiktoken looks for, and return the folder."""
    spec = find_spec("bpe_openai")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("bpe-openai, which has the encodings' tables, is not installed")
    source = Path(spec.submodule_search_locations[0]) / "data"
    folder = Path(mkdtemp(prefix="tollway-encodings-"))
    for table in _TABLES:
        # Its own choice of file names: not for any secret.
        name = hashlib.sha1(f"{_ADDRESS}{table}.tiktoken".encode()).hexdigest()  # noqa: S324
        (folder / name).write_bytes(gzip.decompress((source / f"{table}.tiktoken.gz").read_bytes()))
    return folder
