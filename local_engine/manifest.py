"""What a folder of converted weights holds, and whether it still holds it.

A manifest is written last, so a folder without one was never finished. The sizes are looked at on
every start of the engine; the hashes, which take seconds, only by `local_engine.convert`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

MANIFEST_NAME = "manifest.json"
_READ_BYTES = 1 << 22


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file's size in bytes and its SHA-256 in hex."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The files that a conversion produced, by name, and what it read."""

    source: str
    source_sha256: str
    made_with: dict[str, str]
    files: dict[str, FileEntry]


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file; reads it in pieces, and blocks while it does.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def describe(folder: Path) -> dict[str, FileEntry]:
    """Measure and hash every file of a folder, the manifest itself left out."""
    names = sorted(
        path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST_NAME
    )
    return {
        name: FileEntry((folder / name).stat().st_size, sha256_of(folder / name)) for name in names
    }


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into its folder, as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST_NAME).write_bytes(text + b"\n")


def read(folder: Path) -> Manifest | None:
    """Return the folder's manifest, or None where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / MANIFEST_NAME).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def find_fault(folder: Path, manifest: Manifest, *, hashes: bool) -> str | None:
    """Say what differs between a folder and its manifest.

    Args:
        folder: Where the files should lie.
        manifest: What should lie there.
        hashes: Whether to read and hash every file too; otherwise only the sizes are compared.

    Returns:
        A sentence about the first fault, or None when all is as it was written.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            return f"{name} has {size_bytes} bytes, not {entry.size_bytes}"
        if hashes and sha256_of(path) != entry.sha256:
            return f"{name} does not match its SHA-256"
    return None
