"""In a real notebook kernel: progress bars are text without complaints, and results show themselves."""

from __future__ import annotations

from typing import Any

import pytest

CODE = """
import torch
from torch import nn
from absence_plugins.methods.patches import find_extreme_patches

images = (torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.9).float()
found = find_extreme_patches(nn.Conv2d(1, 2, 3).eval(), "", images, k=2, size=3, stride=1)
"""
LINES = """
import sys
from tqdm.auto import tqdm
from absence_plugins.report.unit.interrupt import interruptions

with interruptions() as seen:
    tqdm.write("written beside a bar", file=sys.stderr)
print("interrupted" if seen else "not interrupted")
"""


@pytest.mark.slow
@pytest.mark.needs("nbclient", "ipykernel")
def test_bars_and_results_in_a_kernel() -> None:
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source) for source in (CODE, "found", LINES, "found.figure()")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    bar = text_of(cells[0])
    assert "scanning" in bar
    assert "100%" in bar
    assert "Warning" not in bar
    assert "ipywidgets" not in bar
    shown = cells[1]["outputs"][0]["data"]["text/html"]
    assert "<table" in shown
    assert "data:image/png;base64" in shown
    assert "written beside a bar" in text_of(cells[2])
    assert "not interrupted" in text_of(cells[2])
    assert "image/png" in cells[3]["outputs"][0]["data"]


def text_of(cell: Any) -> str:
    """What a cell wrote to its two streams."""
    assert {one["output_type"] for one in cell["outputs"]} <= {"stream"}
    return "".join(one["text"] for one in cell["outputs"])
