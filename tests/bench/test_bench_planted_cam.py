"""Maps of layers in the planted benchmark, made as large as images, signals and volumes; pytorch-grad-cam's among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from absence_plugins.bench import planted as bench
from absence_plugins.bench import planted_cam
from absence_plugins.bench.planted_cam import CAMS, GradCam, cam_methods
from absence_plugins.bench.planted_layers import find_positions, upsample
from absence_plugins.data.planted import PROBLEMS
from absence_plugins.methods.checkpoint import read_record, write_record
from absence_plugins.methods.faithfulness import PlantedTable, Question

SIGNALS = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 3, 3, padding=1), nn.MaxPool1d(4), nn.Conv1d(3, 2, 3, padding=1))
VOLUMES = nn.Sequential(nn.Unflatten(2, (4, 4)), nn.Conv3d(1, 3, 3, padding=1), nn.MaxPool3d(2), nn.Conv3d(3, 2, 1))


def test_a_map_of_a_signal_is_interpolated_along_it() -> None:
    x = torch.zeros(2, 1, 1, 16)
    assert find_positions(SIGNALS, x) == ("3", (4,))
    small = torch.arange(16.0).reshape(2, 2, 4)
    large = upsample(small, SIGNALS, x)
    assert large.shape == (2, 1, 1, 16)
    expected = F.interpolate(small.sum(1, keepdim=True), size=16, mode="linear", align_corners=False)
    assert torch.equal(large[:, :, 0], expected)
    each = upsample(torch.stack([small, 2 * small], 1), SIGNALS, x)  # per reference
    assert torch.equal(each[:, 1], 2 * large)


def test_a_map_of_a_volume_is_interpolated_along_all_three_axes() -> None:
    x = torch.zeros(1, 1, 16, 4)  # slices below each other
    assert find_positions(VOLUMES, x) == ("3", (2, 2, 2))
    small = torch.tensor([0.0, 1.0]).reshape(1, 1, 2, 1, 1).expand(1, 2, 2, 2, 2)  # grows with the depth
    large = upsample(small, VOLUMES, x).reshape(4, 4, 4)
    assert torch.equal(large[:, 0, 0], torch.tensor([0.0, 0.5, 1.5, 2.0]))
    assert torch.equal(large, large[:, :1, :1].expand(4, 4, 4))


def test_a_network_without_positions_and_an_empty_map_say_so() -> None:
    rows = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="no layer with positions"):
        find_positions(rows, torch.zeros(1, 1, 1, 4))
    with pytest.raises(ValueError, match="the map is empty"):
        upsample(torch.empty(0), SIGNALS, torch.zeros(2, 1, 1, 16))


def test_cams_are_asked_where_the_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_cam, "find_spec", lambda name: None)
    assert not dict(cam_methods())
    monkeypatch.setattr(planted_cam, "find_spec", lambda name: name)
    assert list(dict(cam_methods())) == [f"grad-cam {name}" for name in CAMS]


@pytest.mark.needs("pytorch_grad_cam")
def test_gradcam_is_the_rectified_sum_of_channels_weighted_by_mean_gradients() -> None:
    question = Question.of(PROBLEMS["shape_missing"](0), "nontarget", 3, 1)
    found = GradCam("GradCAM")(question)
    name, _ = find_positions(question.model, question.x)
    seen: list[torch.Tensor] = []
    handle = question.model.get_submodule(name).register_forward_hook(lambda _m, _i, output: seen.append(output))
    value = question.model(question.x)[:, question.unit].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(value, seen[0])
    small = (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1, keepdim=True).relu().detach()
    large = F.interpolate(small, size=question.x.shape[2:], mode="bilinear", align_corners=False)
    top = large.amax((2, 3), keepdim=True).clamp(min=1e-7)
    low = large.amin((2, 3), keepdim=True)
    assert torch.allclose(found, (large - low) / (top - low).clamp(min=1e-7), atol=1e-3)
    assert all(parameter.grad is None for parameter in question.model.parameters())


@pytest.mark.needs("pytorch_grad_cam")
def test_a_signal_has_no_class_activation_map() -> None:
    with pytest.raises(ValueError, match="2 axes of positions; that of this network has 1"):
        GradCam("LayerCAM")(Question.of(PROBLEMS["signal_missing"](0), "nontarget", 1, 1))


def test_answers_of_another_version_of_a_package_are_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only those: what other methods answered is kept."""
    seen: list[set[str]] = []

    def answer(methods: Any, problems: list[str], *, known: dict[str, Any], **_: Any) -> PlantedTable:
        own = known.setdefault("question", {})
        seen.append(set(own))
        own.update({name: {"note": ""} for name in methods})
        return PlantedTable((), {})

    monkeypatch.setattr(bench, "planted_benchmark", answer)
    methods = dict.fromkeys(("Saliency", "SHAP GradientExplainer"), None)
    for versions in ({"shap": "1"}, {"shap": "1"}, {}, {"shap": "2"}):
        monkeypatch.setattr(bench, "rival_versions", lambda versions=versions: versions)
        bench._one("shape_missing", methods, {}, tmp_path, False)
    assert seen == [set(), set(methods), set(methods), {"Saliency"}]
    path = tmp_path / "planted-shape_missing.json"
    plain = read_record(path, "other")
    assert plain is None
    write_record(path, "other", {"answers": {}})
    bench._one("shape_missing", methods, {}, tmp_path, False)
    assert seen[-1] == set()
