"""Scripts in the shapes of Zennit's examples, with the import of the attributors, of the rules, or of both changed."""

from __future__ import annotations

import functools
import re

import pytest
from script_runs import FOLDER, Run, differing, run, scripts, swapped

import absence_plugins.zennit as adapters
from absence_plugins.zennit.attributor import AbsenceAttributor

RULES, ATTRIBUTORS = "composites|rules", "attribution"


def ours(line: re.Match[str]) -> str:
    """The import of a module of Zennit's with our classes under Zennit's names, where there are any."""
    names = line[2].split(", ")
    own = [f"Absence{name} as {name}" for name in names if hasattr(adapters, f"Absence{name}")]
    rest = [name for name in names if not hasattr(adapters, f"Absence{name}")]
    lines = [f"from absence_plugins.zennit import {', '.join(own)}"] if own else []
    return "; ".join([*lines, *([f"from zennit.{line[1]} import {', '.join(rest)}"] if rest else [])])


def source_of(name: str) -> str:
    return (FOLDER / f"zennit_{name}.py").read_text()


@functools.cache
def plain(name: str) -> Run:
    return run(f"zennit_{name}")


def changed(name: str, modules: str) -> Run:
    return run(
        f"zennit_{name}",
        swapped(source_of(name), rf"^from zennit\.({modules}) import (.*)$", ours),
        AbsenceAttributor,
    )


@pytest.mark.parametrize("name", scripts("zennit"))
def test_the_attributor_alone_is_zennits(name: str) -> None:
    """Without a reference and without a non-target there is nothing to compare with."""
    assert not differing(plain(name), changed(name, ATTRIBUTORS))


@pytest.mark.parametrize("modules", [RULES, f"{ATTRIBUTORS}|{RULES}"])
@pytest.mark.parametrize(
    "name", [name for name in scripts("zennit") if re.search("zennit.(comp|rules)", source_of(name))]
)
def test_rules_and_composites(name: str, modules: str) -> None:
    """They explain the same output by other rules, and say that nothing was given to compare with."""
    found = changed(name, modules)
    assert not {"output", "size"} & differing(plain(name), found)
    assert "no reference is given" in found.words or "is local" in found.words
