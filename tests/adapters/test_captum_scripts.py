"""Scripts in the shapes of Captum's tutorials, with one changed line: the import of captum.attr."""

from __future__ import annotations

import functools

import matplotlib
import pytest
from script_runs import FOLDER, Run, differing, run, scripts, swapped

from absence_plugins.captum import AbsenceMethod

matplotlib.use("Agg")


@functools.cache
def runs(name: str) -> tuple[Run, Run]:
    """A script as it is written, and with its changed line."""
    source = (FOLDER / f"captum_{name}.py").read_text()
    changed = swapped(source, r"^(from|import) captum\.attr( import| as)", r"\1 absence_plugins.captum.attr\2")
    return run(f"captum_{name}"), run(f"captum_{name}", changed, AbsenceMethod)


@pytest.mark.parametrize("name", scripts("captum"))
def test_the_changed_line_raises_nothing_and_keeps_the_form_of_the_results(name: str) -> None:
    differing(*runs(name))
