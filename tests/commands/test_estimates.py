"""Before long work the commands say how long it will take, and with which options it is shorter; bars move."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import typer
from torch import nn
from torchvision.utils import save_image
from tqdm import tqdm
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands import directions, label, layers, pace
from absence_plugins.methods.directions import DirectionPairs, influence
from absence_plugins.report.unit import explain

COMMANDS = {
    "directions": "directions photos --model digits --layer conv3 --count 2 --steps 1",
    "label": "label --layer linear1 --length 1",
    "patches": "patches --layer conv3 --units 0 --stride 20 --images-per-unit 3 --show 1",
    "report": "report --layer conv3 --units 0 --stride 20 --images-per-unit 3",
}
EXPECTED = {
    "directions": "fit and effects of 2 directions on 6 images",
    "label": "running linear1 on 1,797 images",
    "patches": "scanning and testing 1 units of conv3",
    "report": "report of 1 unit of conv3 on 1,797 images",
}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        save_image(torch.rand(1, 32, 32, generator=generator), f"photos/{number}.png")


def stop(*given: Any, **options: Any) -> Any:
    """Instead of the long work."""
    raise ValueError("the work begins")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_line_on_stderr_with_options_that_exist(photos: None, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONG", 0.0)  # as of long work
    for module, name in ((label, "layer_values"), (layers, "find_extreme_patches"), (directions, "compute_features")):
        monkeypatch.setattr(module, name, stop)
    said, quiet = (CliRunner().invoke(app, [*COMMANDS[command].split(), *more]) for more in ((), ("--quiet",)))
    assert "the work begins" in said.stderr
    assert "the work begins" in quiet.stderr
    (line,) = re.findall(rf"{EXPECTED[command]}: about .*; shorter with .*", said.stderr)
    commands: Any = typer.main.get_command(app)
    known = {name for one in commands.commands[command].params for name in (*one.opts, *one.secondary_opts)}
    options = re.findall(r"--[a-z-]+", line)
    assert options
    assert set(options) <= known
    assert ": about" not in said.stdout
    assert ": about" not in quiet.output


def test_what_fails_in_an_estimate_is_left_to_the_work() -> None:
    state = torch.get_rng_state()
    with pace.estimating():
        torch.rand(1)
        stop()
    assert torch.equal(torch.get_rng_state(), state)


def test_forwards_of_tests_are_timed_as_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In channels last, with batch norms folded: what is timed sees no batch norm any more."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen: list[tuple[bool, int]] = []

    def time_forward(run: Any, batch: torch.Tensor) -> float:
        with torch.profiler.profile() as trace:
            run(batch)
        seen.append((any("batch_norm" in one.key for one in trace.key_averages()), len(batch)))
        return 0.25

    monkeypatch.setattr(pace, "time_forward", time_forward)
    plain = pace.Pace.measure(net, x)
    fast = plain.in_fast_way(net, x, lambda model, images: model(images))
    assert seen == [(True, pace.AT_ONCE), (False, pace.AT_ONCE)]
    assert fast == pace.Pace(0.25, plain.backward)


class Bar(tqdm):  # type: ignore[misc]
    """One that remembers what was shown."""

    seen: ClassVar[list[tuple[str, int, int, str]]] = []

    def update(self, n: float | None = 1) -> Any:
        super().update(n)
        self.seen.append((self.desc, int(self.n), int(self.total or 0), ""))

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        super().set_postfix_str(s, refresh)
        self.seen.append((self.desc, int(self.n), int(self.total or 0), s))


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_the_influence_counts_every_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("influence", "effects", "estimate"):
        monkeypatch.setattr(importlib.import_module(f"absence_plugins.methods.directions.{name}"), "tqdm", Bar)
    monkeypatch.setattr(Bar, "seen", [])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    images = torch.rand(6, 1, 6, 6)
    pairs = DirectionPairs(2, starts=2, progress=False).fit_model(net, "0", images)
    for test in ("step", "rcav"):
        Bar.seen.clear()
        influence(pairs, net, "0", images, test=test, batch_size=4, n_permutations=3, progress=True)
        ways = 2 if test == "step" else 2 + 3
        counts = [n for desc, n, _, _ in Bar.seen if desc.startswith("influence")]
        assert counts == [*(4 * (i + 1) for i in range(ways)), *(4 * ways + 2 * (i + 1) for i in range(ways))]
        assert {total for desc, _, total, _ in Bar.seen if desc.startswith("influence")} == {6 * ways}
        places = [n for desc, n, _, _ in Bar.seen if desc.startswith("where directions fire")]
        assert places == ([4, 6] if test == "step" else [])
        flips = [n for desc, n, _, _ in Bar.seen if desc.startswith("sign flips")]
        assert flips == ([6] if test == "step" else [])


def test_the_bar_of_a_unit_moves_with_every_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(2, 1)

    def slow_section(study: Any, unit: int) -> str:
        for _ in range(3):
            study.model(torch.ones(5, 2))
        return "done"

    monkeypatch.setattr(explain, "tqdm", Bar)
    monkeypatch.setattr(Bar, "seen", [])
    monkeypatch.setattr(explain, "SECTIONS", (slow_section,))
    monkeypatch.setattr(explain, "REDRAW", -1.0)
    for progress in (False, True):
        study: Any = SimpleNamespace(model=net, progress=progress)
        found: Any = explain._sections(study, 7)
        assert found == ("done",)
    assert [words for desc, _, _, words in Bar.seen if words and desc.startswith("unit 7: slow")] == [
        "5 passes", "10 passes", "15 passes",
    ]  # fmt: skip
    assert not net._forward_pre_hooks
