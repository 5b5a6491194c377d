"""Layers, directions and outputs as arguments of the methods; what an older version saved is not read by the new rule."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Direction, Layer, Unit
from absence_plugins.core.outputs import Logit, Margin, Output
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.kept_rows import KeptRows
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches

SCAN: dict[str, Any] = {"k": 2, "size": 2, "stride": 2, "mode": "mask", "progress": False}


class Ambiguous(nn.Module):
    """Nothing tells whether [B, 4, 4] is channels x positions or tokens x channels."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x[:, 0]) * torch.tensor([1.0, 2.0, 3.0, 4.0])  # type: ignore[no-any-return]


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_layer_says_where_its_channels_are() -> None:
    with pytest.raises(ValueError, match=r"channels='first' \(4 channels\) or channels='last' \(4 channels\)"):
        find_extreme_patches(Ambiguous(), "hidden", images(), **SCAN)
    whole = {**SCAN, "size": 4, "stride": 4}
    for channels, axis in (("first", 2), ("last", 1)):
        found = find_extreme_patches(Ambiguous(), Layer("hidden", channels=channels), images(), **whole)  # type: ignore[arg-type]
        values = images()[:, 0].mean(axis)
        assert torch.allclose(found.highest.scores, values.topk(2, dim=0).values.T)
        assert found.settings["channels"] == channels


def test_reduce_belongs_to_the_layer_or_is_said() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1))
    by_layer = find_extreme_patches(net, Layer("0", reduce="sum"), images(), **SCAN)
    by_name = find_extreme_patches(net, "0", images(), reduce="sum", **SCAN)
    assert torch.equal(by_layer.lowest.scores, by_name.lowest.scores)
    assert by_layer.at == by_name.at == Layer("0", reduce="sum")


def test_the_insertion_test_reads_as_the_scan_did() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())
    found = find_extreme_patches(net, Layer("1", side="output", reduce="max"), images(), images=range(3), **SCAN)
    tested = insertion_test(net, "1", images(), found, images_per_unit=3, progress=False)
    clean = net(images()).amax((2, 3)).T.gather(1, tested.images)
    assert torch.allclose(tested.values[:, :, 0], clean)
    with pytest.raises(
        ValueError, match=r"were scanned with Layer\(name='1', channels='auto', side='output', reduce='max'\)"
    ):
        insertion_test(net, Layer("1"), images(), found, progress=False)


def test_what_an_older_version_saved_is_not_read_by_the_new_rule(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())
    found = find_extreme_patches(net, "1", images(), images=range(3), checkpoint=tmp_path / "state", **SCAN)
    found.save(tmp_path / "patches")
    for file in (tmp_path / "patches" / "patches.json", tmp_path / "state" / "scan.json"):
        settings = json.loads(file.read_text())
        del settings["side"], settings["channels"]
        file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="belongs to another scan: channels is None there and 'auto' here"):
        find_extreme_patches(net, "1", images(), images=range(3), checkpoint=tmp_path / "state", **SCAN)
    loaded = ExtremePatches.load(tmp_path / "patches")
    assert torch.equal(loaded.cut(images())[0], found.cut()[0])
    with pytest.raises(ValueError, match="saved by an older version, which read rectified and channels-last layers"):
        insertion_test(net, "1", images(), loaded, progress=False)


def test_layer_values_in_a_folder_are_computed_once(tmp_path: Path) -> None:
    net, x = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU()), images()
    expected = Layer("1").read(net, x).detach()

    def kept() -> KeptRows:
        return KeptRows(Checkpoint(tmp_path, {}, "values"), len(x))

    def failing(wanted: Any) -> Any:
        yield from x[:4].split(2)
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        layer_values(net, "1", Batches(len(x), 2, failing), kept=kept(), progress=False)
    with kept() as rest:
        assert len(rest) == 4
        assert torch.allclose(layer_values(net, "1", Batches.of(x, 2), kept=rest, progress=False), expected)
    whole = layer_values(net, "1", Batches.of(x, len(x)), progress=False)
    assert whole.requires_grad is False
    assert not whole.is_inference()
    with pytest.raises(ValueError, match="no samples"):
        layer_values(net, "1", Batches.of(x[:0], 2), progress=False)


# -- absence_scores -----------------------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([[1.0, 1.0, -2.0, -1.0], [0.0, -3.0, 1.0, 0.5], [0.5, 0.0, 0.0, -1.0]])


@dataclass
class Output4:
    loss: Tensor
    logits: Tensor


class Dataclassed(nn.Module):
    """Works in place on its input, and returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3, bias=False)
        self.linear.weight.data = WEIGHTS.clone()

    def forward(self, x: Tensor) -> Output4:
        x *= 1.0
        return Output4(torch.zeros(()), self.linear(x))


@pytest.mark.parametrize(
    ("unit", "weights"),
    [
        (1, WEIGHTS[[1] * 4]),
        (Unit("linear", 2), WEIGHTS[[2] * 4]),
        (Direction("linear", torch.tensor([1.0, 0.0, -2.0])), (WEIGHTS[0] - 2 * WEIGHTS[2]).expand(4, -1)),
        (Margin(0, 1), (WEIGHTS[0] - WEIGHTS[1]).expand(4, -1)),
        (Logit([0, 1, 2, 0]), WEIGHTS[[0, 1, 2, 0]]),
        (Logit(torch.tensor([0, 1, 2, 0]), sign=-1), -WEIGHTS[[0, 1, 2, 0]]),
    ],
    ids=["logit", "unit", "direction", "margin", "of each sample", "minus, of each sample"],
)
def test_scores_take_units_directions_and_outputs(unit: int | Unit | Direction | Output, weights: Tensor) -> None:
    """Of a linear unit the weights are the perfect map, and their negative is worse than a random order."""
    x = torch.ones(4, 4)
    scores = absence_scores(Dataclassed(), x, unit, weights, progress=False)
    assert scores.score == 1.0
    held_down = -weights.clamp(max=0).sum(1)
    assert scores.curves["map"][-1].item() == pytest.approx(float(held_down.mean()), rel=1e-5)
    assert absence_scores(Dataclassed(), x, unit, -weights, progress=False).score < 0
    assert torch.equal(x, torch.ones(4, 4))
