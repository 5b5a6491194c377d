"""Maps of all Absence composites on the planted networks, as files that outlive a new mechanism.

``python pin_zennit_maps.py FILE`` writes them; the file in the repository was made with commit e088510 (module hooks on a
batch [x, r]). For every problem and view: one image x, its nearest reference r, and the map of the absence unit's
u(x) - u(r). View "nontarget": the key is on x; view "reference": it is on r. Networks and images in float32, maps in float64.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning
from absence_plugins.data.planted import ATTENTION, LATER, PROBLEMS, Planted
from absence_plugins.data.planted.networks import normalized_network, plain_network, residual_network

FILE = Path(__file__).with_name("zennit_maps.safetensors")
NAMES = [name for name in PROBLEMS if name not in ATTENTION and name not in LATER]
VIEWS = ("nontarget", "reference")


def pair(problem: Planted, view: str) -> tuple[Tensor, Tensor]:
    """x and its nearest reference of the other class, [1, C, H, W] each."""
    here, there = problem.presence_unit, problem.absence_unit
    if view == "reference":
        here, there = there, here
    x = problem.images[problem.labels == here][:1]
    references = ReferenceSet(problem.pool_images, problem.pool_labels, empty=problem.empty, k=1, contrast=there)
    chosen = references.nearest_indices(x, here).flatten()
    return x, problem.pool_images[chosen]


def zennit_map(model: nn.Module, composite: Any, x: Tensor, r: Tensor, unit: int) -> Tensor:
    """R of u(x) - u(r) by a composite, in float64."""
    from absence_plugins.zennit import AbsenceGradient

    with warnings.catch_warnings(), AbsenceGradient(model, composite, reference=r[0]) as attributor:
        warnings.simplefilter("ignore", AbsenceWarning)
        outputs = model(x[:1]).shape[1]
        _, relevance = attributor(x, torch.eye(outputs, dtype=x.dtype)[[unit]])
    found: Tensor = relevance.detach()
    return found


def write(path: Path) -> None:
    """Train the networks, draw the maps, save everything."""
    from absence_plugins.bench.scores import built, composites

    tensors: dict[str, Tensor] = {}
    units = {}
    for name in NAMES:
        problem = PROBLEMS[name](0)
        units[name] = problem.absence_unit
        model = copy.deepcopy(problem.model).double()
        for key, value in problem.model.state_dict().items():
            tensors[f"{name}/model/{key}"] = value.clone()
        for view in VIEWS:
            x, r = pair(problem, view)
            tensors[f"{name}/{view}/x"], tensors[f"{name}/{view}/r"] = x.contiguous().clone(), r.contiguous().clone()
            for kind_name, kind in composites(absence=True).items():
                found = zennit_map(model, built(kind, problem), x.double(), r.double(), problem.absence_unit)
                tensors[f"{name}/{view}/{kind_name}"] = found.contiguous()
    save_file(tensors, path, metadata={"units": json.dumps(units)})


def network(problem: str) -> nn.Sequential:
    """The architecture of a problem's network, without weights: nothing has to be trained again."""
    with torch.device("meta"):
        if problem in ("shape_missing", "patch_missing"):
            return normalized_network(3 if problem == "patch_missing" else 1)
        if problem == "shape_missing_residual":
            return residual_network()
        if problem == "hidden_unit":
            full = residual_network()
            parts = {name: full.get_submodule(name) for name in ("conv", "norm", "relu", "block1", "pool1")}
            block, signs = full.get_submodule("block2"), nn.Conv2d(24, 2, 1, bias=False)
            parts |= {"block2_conv1": block.get_submodule("conv1"), "block2_norm1": block.get_submodule("norm1")}
            return nn.Sequential(
                OrderedDict(parts | {"signs": signs, "mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
            )
        if problem == "green_missing":
            first, second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
            return nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        plain = plain_network(outputs=3 if problem == "conjunction" else 2)
        if problem == "shape_missing_dead":
            del plain.linear
            plain.absence, plain.relu4, plain.linear = nn.Linear(32, 1), nn.ReLU(), nn.Linear(1, 2)
        if problem == "stroke_missing":
            plain.pool3 = nn.MaxPool2d(2)
            del plain.linear
            plain.linear1, plain.relu4, plain.linear2 = nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)
        return plain


class Pinned:
    """What the file holds of one problem and view."""

    def __init__(self, problem: str, view: str) -> None:
        self.name = problem
        with safe_open(FILE, "pt") as file:
            self.unit: int = json.loads(file.metadata()["units"])[problem]
            keys = [key for key in file.keys() if key.startswith(f"{problem}/")]  # noqa: SIM118  (no mapping)
            read = {key.removeprefix(f"{problem}/"): file.get_tensor(key) for key in keys}
        self.model = network(problem)
        state = {k.removeprefix("model/"): v for k, v in read.items() if k.startswith("model/")}
        self.model.load_state_dict(state, assign=True)
        self.model.double().eval()
        self.x, self.r = (read[f"{view}/{part}"].double() for part in "xr")
        self.maps = {k.removeprefix(f"{view}/"): v for k, v in read.items() if k.startswith(f"{view}/Absence")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(Path(sys.argv[1]))
