"""The page of directions: its table, its checks with a control, what is kept of them, and tokens on their grid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from absence_plugins.commands import directions_page as module
from absence_plugins.commands.directions_page import Texts, directions_page
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.directions.report import Status

pytestmark = pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
TEXTS = Texts("Directions", "Some.", "class {}".format)


def network() -> nn.Module:
    """Two channels: how bright a place is, and how dark; the first logit is held down by brightness."""
    front = nn.Conv2d(1, 2, 4, 4)
    front.weight.data = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)]) / 16
    assert front.bias is not None
    front.bias.data = torch.tensor([0.0, 1.0])
    last = nn.Linear(2, 2, bias=False)
    last.weight.data = torch.tensor([[-10.0, 0.0], [5.0, 0.0]])
    return nn.Sequential(front, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


def scenes(count: int = 60) -> torch.Tensor:
    """A white square in the dark, at one of 16 places, or none."""
    x = 0.01 * torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for i in range(count):
        y, z = 8 * (i % 4), 8 * (i // 4 % 4)
        if i % 3:
            x[i, :, y : y + 4, z : z + 4] += 0.9
    return x


def test_checks_are_kept_and_have_a_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), scenes()
    features = model[0](x).permute(0, 2, 3, 1).detach()  # type: ignore[index]
    pairs = DirectionPairs.from_directions(torch.tensor([[1.0, 0.0]]), features)
    folder = tmp_path / "state"

    def write(out: str) -> dict[str, Any]:
        keeper = Checkpoint(folder, {}, "influence")
        path = directions_page(pairs, model, "0", x, x, tmp_path / out, TEXTS, features=features, checkpoint=keeper)
        text = path.read_text(encoding="utf-8")
        for words in ("holds down", "rises, painted over", "elsewhere", "class 0", "100 %, +"):
            assert words in text
        found: dict[str, Any] = json.loads((tmp_path / out / "results.json").read_text(encoding="utf-8"))
        return found

    first = write("one")
    (check,) = first["checks"]
    assert check["check"]["raised_share"] == 1.0, "black instead of the white square raises what it held down"
    assert check["elsewhere"]["mean_rise"] < 0.2 * check["check"]["mean_rise"]
    monkeypatch.setattr(module, "as_explained", lambda *_: pytest.fail("checked twice"))
    assert write("two") == first


def test_what_is_not_to_be_trusted_is_said_and_what_is_left_out(tmp_path: Path) -> None:
    model, x = network(), scenes()
    features = model[0](x).permute(0, 2, 3, 1).detach()  # type: ignore[index]
    rows = torch.tensor([[1.0, 0.0], [0.5, -0.4], [1.0, 0.3]])
    pairs = DirectionPairs.from_directions(rows, features)
    cases: tuple[tuple[tuple[Status, ...], tuple[str, ...]], ...] = (
        (("active", "unresolved", "inactive"), ("direction 1 (unresolved)", "do not trust it", "1 of 3 directions")),
        (("active", "split", "active"), ("direction 1 (split)", "reads a part of what other directions read")),
        (("inactive",) * 3, ("3 of 3 directions, which are inactive",)),
    )
    for status, said in cases:
        pairs.report_ = replace(pairs.report_, status=status)
        text = directions_page(pairs, model, "0", x, x, tmp_path, TEXTS, features=features).read_text(encoding="utf-8")
        assert all(words in text for words in said)
        assert ("direction 2" in text) == (status[2] == "active")


def test_tokens_of_a_vision_transformer(tmp_path: Path) -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3)
    nn.init.normal_(model.heads.head.weight)
    x = torch.rand(20, 3, 32, 32)
    layer = "encoder.layers.encoder_layer_0"
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, layer, x)
    path = directions_page(pairs, model, layer, x, x, tmp_path, TEXTS)
    assert path.is_file()
    assert (tmp_path / "gallery.png").is_file()
