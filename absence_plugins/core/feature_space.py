"""Nearness in the network's own features, where two photographs of one scene are near that share no pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.checks import check_choice, check_integer
from absence_plugins.core.hooks import evaluating, hooking, keep_to_thread, quiet_forward
from absence_plugins.core.reading import plain_model, run_model
from absence_plugins.core.spaces import Metric
from absence_plugins.core.units import Layer

DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """The features in which a :class:`~absence_plugins.ReferenceSet` searches the nearest references.

    Args:
        model: the network that reads the images as they are given: usually the explained one.
        layer: its layer, a :class:`Layer` or a name; positions are reduced as the ``Layer`` says (mean). None: the
            values in front of the last module with weights, that is, what the classifier sees.
        distance: "cosine" (of directions) or "euclidean".
        batch_size: images per forward.

    The features of the references are computed once, and again after the model's weights have changed. The model runs
    in evaluation mode, without gradients, no further than the layer, and is as before afterwards.

    Raises:
        ValueError: a distance or a layer that does not exist.
        TypeError: no module.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))  # sees the first number only
    >>> FeatureSpace(net, distance="euclidean").points(torch.tensor([[3.0, 9.0]])).tolist()
    [[3.0, 0.0]]
    """

    model: nn.Module
    layer: str | Layer | None = None
    distance: Literal["cosine", "euclidean"] = "cosine"
    batch_size: int = 64
    metric: ClassVar[Metric] = "squared"

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"features are those of an nn.Module, got a {type(self.model).__name__}; pass the module")
        check_choice("distance", self.distance, DISTANCES)
        check_integer("batch_size", self.batch_size)
        if self.layer is not None:
            Layer.of(self.layer).module(self.model)  # rejects a name that does not exist

    def points(self, *images: Tensor) -> Tensor:
        """The features of inputs [N, ...] as points [N, F] whose squared Euclidean distances rank them, on the CPU."""
        place = next(self.model.parameters(), images[0])
        found = []
        with torch.inference_mode(False), torch.no_grad():
            own = tuple(part.clone() if part.is_inference() else part for part in images)
            first = tuple(part[:1].to(place.device) for part in own)
            layer = Layer.of(find_last_features(self.model, *first) if self.layer is None else self.layer)
            with layer.reading(self.model) as read:
                for start in range(0, len(own[0]), self.batch_size):
                    batch = (part[start : start + self.batch_size].to(place.device) for part in own)
                    found.append(layer.reduced(read(*batch)).float().cpu())
            points = torch.cat(found)
        if not bool(torch.isfinite(points).all()):
            row = int((~torch.isfinite(points)).any(1).nonzero()[0])
            raise ValueError(f"the features of image {row} at layer {layer} are NaN or infinite; leave the image out")
        return F.normalize(points, dim=1) if self.distance == "cosine" else points

    def state(self) -> tuple[Any, ...]:
        """What changes with every change of the model's weights, those of ``weight.data`` included."""
        tensors = [one.detach() for one in (*self.model.parameters(), *self.model.buffers())]
        places = tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in tensors)
        real = [one.flatten() for one in tensors if one.numel() and one.is_floating_point()]
        # torch counts no change of weight.data: sums and norms tell
        return places, tuple((float(one.sum(dtype=torch.float64)), float(one.float().norm())) for one in real)


def find_last_features(model: nn.Module, *images: Tensor, before: nn.Module | None = None) -> Layer:
    """The input of the last module with a matrix or filters that runs; without any, the model's output.

    before: of those that run until this module has run, itself included.

    >>> find_last_features(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.zeros(1, 2))
    Layer(name='2', channels='auto', side='input', reduce='mean')
    """
    ran: list[nn.Module] = []
    past: list[bool] = []
    model = plain_model(model)
    weighted = {
        one: name
        for name, one in model.named_modules()
        if any(parameter.dim() > 1 for parameter in one.parameters(recurse=False))
    }

    def keep(module: nn.Module, *_call: Any) -> None:
        if module in weighted and not past:
            ran.append(module)
        if module is before:
            past.append(True)

    watched = dict.fromkeys([*weighted, *([] if before is None else [before])])
    hooks = [partial(one.register_forward_hook, keep_to_thread(keep)) for one in watched]
    with hooking(model, hooks), quiet_forward(images), evaluating(model):
        run_model(model, images)
    return Layer(weighted[ran[-1]], side="input") if ran else Layer("")
