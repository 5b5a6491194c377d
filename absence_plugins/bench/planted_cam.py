"""pytorch-grad-cam's class activation maps in the planted benchmark, where the extra ``rivals`` is installed."""

from __future__ import annotations

import copy
import importlib
import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.planted_layers import find_positions
from absence_plugins.data.planted.transformer import Tokens
from absence_plugins.methods.faithfulness import Question

CAM = "grad-cam "  # how the names of these rows begin
CAMS = ("GradCAM", "GradCAMPlusPlus", "LayerCAM", "HiResCAM", "EigenCAM", "ScoreCAM")


@dataclass(frozen=True)
class GradCam:
    """A class of ``pytorch_grad_cam`` of the unit, as shipped: between 0 and 1, so it has no place for a minus.

    The layer is the last one with positions; in a vision transformer, as the package's page on them says, the norm in
    front of the last attention, with the class token left out. In both views it is asked about the unit, as it
    knows no reference.

    Source: https://github.com/jacobgil/pytorch-grad-cam; Selvaraju et al., ICCV 2017.
    """

    name: str

    def __call__(self, question: Question) -> Tensor:
        """The map [N, 1, H, W], 0 to 1.

        Raises:
            ValueError: the network has no layer with two axes of positions.
        """
        package = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
        _, positions = find_positions(question.model, question.x)
        if len(positions) != 2:
            raise ValueError(f"asks for a layer with 2 axes of positions; that of this network has {len(positions)}")
        model = copy.deepcopy(question.model)  # its gradients stay with the copy
        layer, options = _choose_layer(model, question, positions)
        wanted = [targets.ClassifierOutputTarget(question.unit)] * len(question.x)
        with redirect_stderr(io.StringIO()), getattr(package, self.name)(model, [layer], **options) as cam:
            found = cam(question.x, wanted)
        return torch.as_tensor(found)[:, None].to(question.x)


def _choose_layer(model: nn.Module, question: Question, positions: tuple[int, ...]) -> tuple[nn.Module, dict[str, Any]]:
    """The module to look at in ``model``, and how its tokens become an image."""
    if not any(isinstance(module, Tokens) for module in model.modules()):
        name, _ = find_positions(question.model, question.x)
        return model.get_submodule(name), {}
    named = [
        name for name, module in model.named_modules() if name.endswith("norm1") and isinstance(module, nn.LayerNorm)
    ]

    def unfold(tokens: Tensor) -> Tensor:
        patches = tokens[:, 1:].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *positions)

    return model.get_submodule(named[-1]), {"reshape_transform": unfold}


def cam_methods() -> Iterator[tuple[str, GradCam]]:
    """``grad-cam NAME`` if pytorch-grad-cam is installed."""
    if find_spec("pytorch_grad_cam") is not None:
        for name in CAMS:
            yield f"{CAM}{name}", GradCam(name)
