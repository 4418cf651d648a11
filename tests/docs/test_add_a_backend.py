"""The guide's samples make a vendor and a backend that work, without a file that existed before."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from backends.openai_like import fields_of as api_fields
from backends.types import FinishReason
from backends.vendors import Vendor
from backends.wire.decoder import AnswerDecoder
from backends.wire.openai_request import decode_request
from tests.docs.pages import ROOT, rows, samples, section
from tests.docs.test_tables import fields_of, key_table

PAGE = "docs/add-a-backend.md"
IMPORT = "from backends.wire.ndjson import NDJSONDecoder\n"


def written(kind: str) -> list[str]:
    """Return the guide's samples of one kind."""
    return [sample.text for sample in samples(PAGE) if sample.info == kind]


def put(text: str, old: str, new: str) -> str:
    """Return a sample with a change that fits it."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def run(folder: Path, code: str) -> None:
    """Run code in which ``backends`` and its vendors are found in a folder, too."""
    prelude = (
        "import backends, backends.vendors, sys\n"
        f"backends.__path__.append({str(folder / 'backends')!r})\n"
        f"backends.vendors.__path__.append({str(folder / 'backends' / 'vendors')!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guides_vendor_is_found_by_its_name(tmp_path: Path) -> None:
    """One file of data; nothing else is edited."""
    [row] = written("toml")
    name = "parrot"
    folder = tmp_path / "backends" / "vendors"
    folder.mkdir(parents=True)
    (folder / f"{name}.toml").write_text(row, encoding="utf-8")
    run(
        tmp_path,
        "from backends.base import BackendConfig\n"
        f"backends.check(BackendConfig('openai', 'm', options={{'vendor': {name!r}}}))\n"
        f"backend = backends.load(BackendConfig('openai', 'm', options={{'vendor': {name!r}}}))\n"
        "assert 'seed' not in backend.capabilities.fields\n"
        "assert 'temperature' in backend.capabilities.fields\n",
    )


@pytest.mark.parametrize("wire", ["events", "lines"])
def test_the_guides_backend_is_found_and_passes_the_guides_test(wire: str, tmp_path: Path) -> None:
    """One module and one test; nothing else is edited. With the guide's framing, of JSON lines."""
    adapter, framing, test = written("python")
    if wire == "lines":
        adapter = put(adapter, "    shapes = (_Event,)\n", f"    shapes = (_Event,)\n\n{framing}")
        adapter = put(adapter, "\n_FIELDS", f"{IMPORT}\n_FIELDS")
        test = put(test, 'b"data: " + json.dumps(event).encode() + b"\\n\\n"', "line(event)")
        test = put(test, 'b"data: [garbage, not JSON\\n\\n"', 'b"[garbage, not JSON\\n"')
        test = put(test, "import ForeignContract", "import ForeignContract, line")
    folder = tmp_path / "backends"
    (folder / "vendors").mkdir(parents=True)
    (folder / "parrot.py").write_text(adapter, encoding="utf-8")
    (tmp_path / "test_parrot.py").write_text(test, encoding="utf-8")
    run(
        tmp_path,
        "import pytest\n"
        "assert 'parrot' in backends.kinds()\n"
        "assert backends.option_owners()['accent'] == ('parrot',)\n"
        f"arguments = [{str(tmp_path / 'test_parrot.py')!r}, '-q', '-p', 'no:cacheprovider',\n"
        f"    '--rootdir', {str(ROOT)!r}, '-c', {str(ROOT / 'pyproject.toml')!r}]\n"
        "sys.exit(pytest.main(arguments))\n",
    )


def test_the_suite_passes_with_a_vendor_and_a_backend_that_no_page_knows(tmp_path: Path) -> None:
    """Nothing that exists has to be edited, pages included."""
    folder = tmp_path / "backends" / "vendors"
    folder.mkdir(parents=True)
    (folder / "parrot.toml").write_text(written("toml")[0], encoding="utf-8")
    (folder.parent / "parakeet.py").write_text(written("python")[0], encoding="utf-8")
    run(
        tmp_path,
        "import pytest\n"
        "assert 'parakeet' in backends.kinds() and 'parrot' in backends.vendors.names()\n"
        "tests = ['tests/docs/test_tables.py', 'tests/backends/test_load.py',\n"
        "    'tests/backends/test_vendors.py', 'tests/deploy/test_prices.py']\n"
        "not_here = ['-k', 'not parakeet']  # its test would stand beside the others\n"
        "sys.exit(pytest.main([*tests, *not_here, '-q', '-p', 'no:cacheprovider']))\n",
    )


def test_the_guides_code_is_as_the_house_wants_it() -> None:
    """Whoever copies it has nothing to tidy."""
    adapter, framing, test = written("python")
    decoder = put(adapter, "    shapes = (_Event,)\n", f"    shapes = (_Event,)\n\n{framing}")
    adapter_of_lines = put(decoder, "\n_FIELDS", f"{IMPORT}\n_FIELDS")
    for name, text in (
        ("backends/parrot.py", adapter),
        ("backends/parrot.py", adapter_of_lines),
        ("tests/backends/test_parrot.py", test),
    ):
        for verb in (["check"], ["format", "--diff"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *verb, "--stdin-filename", name, "-"],
                cwd=ROOT,
                input=text,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_guides_tools_are_what_a_backend_gets() -> None:
    """As a client may send them, and as the house hands them on."""
    [text] = written("json")
    given = json.loads(text)
    request = decode_request(json.dumps({"model": "parrot/grey", **given}).encode()).request
    assert request.params["tools"] == given["tools"]
    assert list(request.messages) == given["messages"]
    assert request.required == {"tools"}


def test_every_key_of_a_row_is_documented_with_its_default() -> None:
    """Those that rows share with other forms among them."""
    assert key_table(section(PAGE, "### The keys of a row")) == fields_of(Vendor)


def test_what_a_decoder_says_of_its_wire_is_documented() -> None:
    """Every attribute that a wire's module may set."""
    known = {
        name: f"`{value!r}`"
        for name, value in vars(AnswerDecoder).items()
        if not name.startswith("_") and not callable(value)
    }
    assert key_table(section(PAGE, "### What a decoder says of its wire")) == known


def test_every_finish_reason_is_documented() -> None:
    """The house's five."""
    table = [row[0].strip("`") for row in rows(section(PAGE, "### How an answer ended"))]
    assert table == list(typing.get_args(FinishReason))


def test_what_tools_have_to_claim_is_documented() -> None:
    """Whatever of a request says something of tools."""
    table = {row[0].strip("`") for row in rows(section(PAGE, "### Tools in a request"))}
    assert table == {name for name in api_fields("chat") if "tool" in name}
