"""A secret in a file that may be replaced while it is used."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("tollway")

LOOK_S = 1.0
"""How often the file is looked at, at most."""


def usable(key: str) -> str:
    """Return a key that a header may carry.

    Raises:
        ValueError: it is empty or has other characters; the message does not quote it.
    """
    if key and key.isascii() and key.isprintable() and " " not in key:
        return key
    raise ValueError(
        "its API key is empty, or has characters that no header may carry; look for a line break "
        "or a pasted space"
    )


class SecretFile:
    """A function that gives what the file holds; what cannot be read leaves the old value."""

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Read it.

        Raises:
            OSError: it cannot be read.
            ValueError: what is in it is no key.
        """
        self._path = path
        self._now = now
        self._looked = now()
        self._version = self._stat()
        self._value = self._read()

    def __call__(self) -> str:
        """Return the secret as it is, or was a second ago."""
        now = self._now()
        if now - self._looked >= LOOK_S:
            self._looked = now
            try:
                version = self._stat()
                if version != self._version:
                    self._value = self._read()
                    self._version = version
            except (OSError, ValueError) as error:
                log.warning("%s: the old key is kept: %s", self._path, _words(error))
        return self._value

    def _stat(self) -> tuple[int, int, int]:
        found = os.stat(self._path)  # noqa: PTH116 - one call, a microsecond, once a second
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> str:
        return usable(self._path.read_text(encoding="utf-8").strip())


def _words(error: OSError | ValueError) -> str:
    """Say what is wrong without what was read."""
    return "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
