"""The guide's samples make a vendor and a backend that work, without a file that existed before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, samples

PAGE = "docs/add-a-backend.md"


def written(kind: str) -> list[str]:
    """Return the guide's samples of one kind."""
    return [sample.text for sample in samples(PAGE) if sample.info == kind]


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


def test_the_guides_backend_is_found_and_passes_the_guides_test(tmp_path: Path) -> None:
    """One module and one test; nothing else is edited."""
    adapter, test = written("python")
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
