"""Coverage-guided fuzzing of every decoder: ``make fuzz`` (ten minutes; ARGS="-max_total_time=60").

The first byte picks the wire, the second how the rest is cut into reads. Scripted answers are the
corpus to start from. A break of a law is a crash, and its input is kept in ``.bench/fuzz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["backends"]):
    from tests.fuzz.laws import bodies, check, decoders, play

CORPUS = Path(__file__).resolve().parents[2] / ".bench" / "fuzz"
NAMES = sorted(decoders())
DEFAULTS = ["-max_total_time=600", "-max_len=8192", "-timeout=10", "-rss_limit_mb=2048"]


def one(data: bytes) -> None:
    """Decode one input and check the laws."""
    if len(data) < 2:
        return
    decoder = decoders()[NAMES[data[0] % len(NAMES)]]()
    body, step = data[2:], 1 + data[1] * 4
    reads = [body[at : at + step] for at in range(0, len(body), step)]
    check(decoder, play(decoder, reads))


def main() -> None:
    """Write the first corpus and fuzz."""
    corpus = CORPUS / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for wire, name, pieces in bodies():
        if wire.name in NAMES:
            seed = bytes([NAMES.index(wire.name), 64]) + b"".join(pieces)
            (corpus / f"{wire.name}-{name}").write_bytes(seed)
    given = {word.partition("=")[0] for word in sys.argv[1:]}
    defaults = [word for word in DEFAULTS if word.partition("=")[0] not in given]
    prefix = f"-artifact_prefix={CORPUS}/"
    atheris.Setup([sys.argv[0], *defaults, prefix, *sys.argv[1:], str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
