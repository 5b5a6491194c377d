"""The tutorials beyond images: what they say in words and numbers is what their code finds.

The docs build runs all tutorials in a kernel; these pages measure, and their numbers are checked here as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_docs import CELL, ROOT, blocks, run

# Networks that are trained in the page must be right, and the planted absence be found, in nearly all samples.
LEAST = {
    "signals": {"accuracy": 0.99, "sign_right": 0.99, "place_right": 0.99, "borne_out": 0.99},
    "volumes": {"accuracy": 0.99, "sign_right": 0.99, "place_right": 0.99, "borne_out": 0.99},
    "texts": {"accuracy": 0.99, "sign_right": 0.99, "place_right": 0.99, "borne_out": 0.99},
    "segmentation": {"accuracy": 0.99, "sign_right": 0.99, "place_right": 0.99},
    "tables": {"accuracy": 0.94, "share_below": 0.8, "share_below_wine": 0.8, "borne_out": 0.9},
}


def read_page(name: str) -> str:
    return (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", LEAST)
def test_a_tutorial_finds_what_is_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
    found: dict[str, Any] = run(read_page(name), f"docs/tutorials/{name}.md")
    numbers = {key: found[key] for key in LEAST[name]}
    assert all(numbers[key] >= least for key, least in LEAST[name].items()), numbers


@pytest.mark.parametrize("name", LEAST)
def test_the_code_of_a_tutorial_checks_its_numbers(name: str) -> None:
    """An assert in the page fails the docs build, too; every page is a notebook, and is listed in the index."""
    page = read_page(name)
    assert re.match(r"---\nfile_format: mystnb\n", page)
    code = "".join(block.code for block in blocks(page) if block.info == CELL)
    for number in LEAST[name]:
        assert re.search(rf"^ *assert .*\b{number}\b", code, re.MULTILINE), number
    assert f"\ntutorials/{name}\n" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
