"""Print which recorded formats and features pass: ``python -m tests.recordings.table [-v]``.

A Markdown table of wire by feature, ``passed/judged`` with what is out of scope below it. Error
bodies and whole or streamed answers count alike. Exits with 1 if anything in scope fails; ``-v``
says what differs.
"""

from __future__ import annotations

import sys
from collections import Counter

from tests.recordings.cases import ABSENT, DECODERS, Case, every, recorded
from tests.recordings.compare import KNOWN, differences
from tests.recordings.refusals import mistakes

FEATURES = [
    "text", "tool", "parallel-tools", "reasoning", "structured", "multimodal-input",
    "image-output", "server-tool", "citations", "refusal", "content-filter", "error",
    "stream-error",
]  # fmt: skip


def problems(case: Case) -> list[str]:
    """Return what is wrong with how a case is read; a codec that is not there is, too."""
    try:
        found = mistakes(case) if case.is_refusal else differences(case)
    except (ImportError, AttributeError) as missing:
        return [str(missing)]
    except Exception as broken:  # noqa: BLE001  whatever a codec raises is a failure to show
        return [repr(broken)]
    return [] if any(case.name.startswith(name) for name in KNOWN) else found


def main(*, verbose: bool) -> int:
    """Judge everything and print the table."""
    passed: Counter[tuple[str, str]] = Counter()
    judged: Counter[tuple[str, str]] = Counter()
    outside: Counter[str] = Counter()
    failures: list[tuple[Case, list[str]]] = []
    for case in every():
        if case.out_of_scope:
            outside[case.out_of_scope] += 1
            continue
        found = problems(case)
        judged[case.wire, case.feature] += 1
        passed[case.wire, case.feature] += not found
        if found:
            failures.append((case, found))
    print(f"| wire | {' | '.join(FEATURES)} | all |")
    print(f"| --- |{' --- |' * (len(FEATURES) + 1)}")
    for wire in DECODERS:
        cells = [_cell(passed[wire, name], judged[wire, name]) for name in FEATURES]
        print(f"| {wire} | {' | '.join(cells)} | {_all(passed, wire)}/{_all(judged, wire)} |")
    print(f"\n{passed.total()} of {judged.total()} passed; {outside.total()} out of scope:")
    for reason, count in sorted(outside.items()):
        print(f"- {reason}: {count}")
    print(f"- stated exceptions: {len(KNOWN)}")
    if not recorded():
        print(f"\n{ABSENT}: only bodies of our own were judged.")
    for case, found in failures:
        print(f"\nfailed: {case.name} ({case.wire})", *(found if verbose else ()), sep="\n  ")
    return 1 if failures else 0


def _cell(passed: int, judged: int) -> str:
    return f"{passed}/{judged}" if judged else ""


def _all(counts: Counter[tuple[str, str]], wire: str) -> int:
    return sum(count for (name, _), count in counts.items() if name == wire)


if __name__ == "__main__":
    sys.exit(main(verbose="-v" in sys.argv[1:]))
