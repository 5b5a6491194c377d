"""Imported modules are not searched for cycles; everything else is."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from absence_plugins.core.collecting import importing


class Cycle:
    """An object that only the search for cycles frees."""

    def __init__(self) -> None:
        self.own = self


def test_cycles_of_later_are_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_imported_before.py").write_text("HELD = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = gc.get_freeze_count()
    try:
        with importing():
            assert not gc.isenabled()
            importlib.import_module("never_imported_before")
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + 1000
        kept = weakref.ref(Cycle())
        gc.collect()
        assert kept() is None
    finally:
        gc.unfreeze()
        sys.modules.pop("never_imported_before", None)


def test_known_modules_change_nothing_and_errors_neither() -> None:
    before = gc.get_freeze_count()
    with importing():
        import json  # noqa: F401
    assert gc.get_freeze_count() == before
    with pytest.raises(ImportError), importing():
        importlib.import_module("no_such_module_anywhere")
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_ends_as_usual() -> None:
    program = (
        "import atexit\nfrom absence_plugins.core.collecting import end_without_search\n"
        "atexit.register(print, 'said at the end')\nend_without_search(); end_without_search()\nprint('said')\n"
        "raise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")[:2]) == (3, ["said", "said at the end"])
