"""The methods that ``check`` tries, each as a function of one image, with what it costs in forwards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.maps.explainers import (
    CaptumMaps,
    attributes_to_inputs,
    explainer,
    input_method,
    list_adapters,
)
from absence_plugins.core.outputs import class_scores
from absence_plugins.core.scores import run_scores
from absence_plugins.relevance.rules import LOWER, RULES

LARGE = 100  # blocks whose orders are no number any more
GRADIENT = 3.0  # forwards that a gradient costs
STEPS, PICTURE_STEPS = 50, 256
SMALL, SMALLEST = 32, 96  # sides of the smaller image, and from which on there is one
FAMILIES = ("relevance", "Captum", "Captum, layers", "Captum, neurons", "Zennit", "Lucent", "commands")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with one image.

    Attributes:
        model: as it is.
        inputs: [1, ...].
        blank: without content, of the same shape.
        scores: [1, K].
        target: the predicted class.
        difference: u(x) - u(blank) of the target.
        seconds: of one forward.
        layer: a layer with positions, whose units are read; "" if there is none.
    """

    model: nn.Module
    inputs: Tensor
    blank: Tensor
    scores: Tensor
    target: int
    difference: float
    seconds: float
    layer: str = ""

    @classmethod
    def of(
        cls, model: nn.Module, inputs: Tensor, blank: Tensor | None = None, layer: str = "", *, timed: int = 3
    ) -> Subject:
        """The predicted class of an image, against one without content (default: zeros); its seconds are the least of
        so many forwards.
        """
        blank = torch.zeros_like(inputs) if blank is None else blank.expand_as(inputs)
        scores, times = read_scores(model, inputs), []
        for _ in range(timed):
            started = time.perf_counter()
            empty = read_scores(model, blank)
            times.append(time.perf_counter() - started)
        target = int(scores[0].argmax())
        difference = float(scores[0, target].double() - empty[0, target].double())
        return cls(model, inputs, blank, scores, target, difference, min(times), layer)

    def shrink(self) -> Subject | None:
        """The same with an image of a quarter of the side; None for small images, and where the model does not take
        it.
        """
        if not self.is_image or self.side < SMALLEST:
            return None
        sides = [max(SMALL, size // 4) for size in self.inputs.shape[-2:]]
        inputs, blank = (nn.functional.interpolate(one, sides, mode="area") for one in (self.inputs, self.blank))
        try:
            found = Subject.of(self.model, inputs, blank, self.layer)
        except Exception:  # whatever a forward raises on a size that it does not take
            return None
        if found.scores.shape != self.scores.shape or found.seconds >= self.seconds:
            return None
        return found

    @property
    def is_image(self) -> bool:
        """Whether the inputs are [1, C, H, W]."""
        return self.inputs.dim() == 4

    @property
    def side(self) -> int:
        """The shorter side of the image."""
        return min(self.inputs.shape[-2:])


def read_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """A model's scores, in front of a softmax or sigmoid that it ends in: [B, ...] -> [B, K], without gradients.

    Of maps [B, K, H, W] the sums over the image.
    """
    with torch.no_grad():
        return class_scores(run_scores(model, (inputs,))[0])


@dataclass(frozen=True)
class Candidate:
    """A method to try.

    Attributes:
        family, method: its names.
        needs_image: whether it is for images [1, C, H, W] only.
        scales: whether it is the same on a smaller image.
        run: makes the map whose sum is to be u(x) - u(blank), if it ``is_complete``; None if it makes no map.
        passes: forwards that it costs, roughly.
        part: the same with a small part of the work, which costs ``part_passes``. Without it, ``part_passes`` above 0
            says that ``run`` itself is such a part.
    """

    family: str
    method: str
    run: Callable[[Subject], Tensor | None]
    passes: Callable[[Subject], float] = lambda _subject: 4.0
    part: Callable[[Subject], Tensor | None] | None = None
    part_passes: float = 0.0
    is_complete: bool = False
    scales: bool = True
    needs_image: bool = False


def candidates() -> list[Candidate]:
    """All of them, the ones that matter most first: later ones are left out where time runs short."""
    first = default_candidates(["relevance", "captum:IntegratedGradients", "captum:Occlusion"])
    others = [
        *(_explained("relevance", f"relevance:{rule}", 8.0) for rule in (*LOWER, *RULES) if rule != "lower_gamma"),
        replace(_explained("Captum", "GradCam", 4.0), is_complete=False, needs_image=True),
        *(_captum(name) for name in _input_adapters() if name not in ("IntegratedGradients", "Occlusion")),
    ]
    zennit = [_explained("Zennit", f"zennit:{key}", 8.0) for key in _composites()]
    units = _units()
    pictures = [one for one in units if one.family == "Lucent"]
    commands = [one for one in units if one.family != "Lucent"]
    return [*first, *zennit[:1], *commands, *_hidden(), *others, *pictures, *zennit[1:]]


def default_candidates(names: Sequence[str]) -> list[Candidate]:
    """Candidates of these methods, by the names that ``--method`` takes."""
    return [
        _captum(name.partition(":")[2]) if name.startswith("captum:") else _explained("relevance", name, 8.0)
        for name in names
    ]


def rejected() -> list[tuple[str, str, str]]:
    """Methods that cannot show absences on any model: family, name, reason."""
    found = [
        (_family(name), name, made._traits.refuses) for name, made in list_adapters().items() if made._traits.refuses
    ]
    try:
        from absence_plugins.zennit.refused import REFUSALS
    except ImportError:
        return found
    return found + [("Zennit", name, reason) for name, reason in REFUSALS.items()]


def _family(name: str) -> str:
    """The family of a class of Captum.

    >>> _family("NeuronDeconvolution")
    'Captum, neurons'
    """
    return "Captum" + {"Layer": ", layers", "Neuro": ", neurons"}.get(name[:5], "")


def _explained(family: str, method: str, passes: float) -> Candidate:
    """A method of ``explain`` on the target, against an empty image."""

    def run(subject: Subject) -> Tensor:
        maps = explainer(method)
        return maps.nontarget(subject.model, subject.inputs, subject.target, "target", subject.blank).attribution

    return Candidate(family, method, run, lambda _subject: passes, is_complete="guided" not in method)


# -- Captum -----------------------------------------------------------------------------------------------------------


def _input_adapters() -> list[str]:
    return [name for name, found in list_adapters().items() if attributes_to_inputs(name, found)]


# what makes a part of the work, and the forwards that the part costs
PARTS: dict[str, tuple[dict[str, Any], float]] = {
    "IntegratedGradients": ({"n_steps": 4}, 4 * GRADIENT),
    "Occlusion": ({"windows": 2}, 5.0),
    "FeatureAblation": ({"blocks": 2}, 5.0),
    "FeaturePermutation": ({"blocks": 2}, 10.0),
    "ShapleyValueSampling": ({"blocks": 2, "n_samples": 2}, 8.0),
    "ShapleyValues": ({"blocks": 1}, 3.0),
    "KernelShap": ({"blocks": 2, "n_samples": 6}, 7.0),
    "Lime": ({"blocks": 2, "n_samples": 6}, 7.0),
}


def _passes(name: str, subject: Subject) -> float:
    """Forwards of one map, a gradient counted as several."""
    counted = CaptumMaps(input_method(name)).count_passes(subject.inputs, 0)  # of two maps
    if name == "ShapleyValues":  # every order of the blocks
        blocks = counted.forward // 2
        return float(math.factorial(blocks)) if blocks < LARGE else math.inf
    return (counted.forward + GRADIENT * counted.backward) / 2


def _captum(name: str) -> Candidate:
    method = input_method(name)
    traits = method._traits
    part, part_passes = PARTS.get(name, ({}, 0.0))

    def run(subject: Subject, **changes: Any) -> Tensor:
        x, arguments = subject.inputs, CaptumMaps(method).arguments(subject.inputs, subject.blank)
        arguments |= _fewer(x, dict(changes))
        target: Any = subject.target
        if name == "FeaturePermutation":  # permutes within the batch
            x, target = torch.cat([x, x.flip(-1)]), [subject.target] * 2
        found: Tensor = method(subject.model, nontarget="target").explain(x, target=target, **arguments).attribution
        mask = arguments.get("feature_mask")
        return (
            found if mask is None else found / mask.flatten().bincount()[mask]
        )  # a block's value stands at every pixel

    return Candidate(
        "Captum",
        f"captum:{name}",
        run,
        partial(_passes, name),
        partial(run, **part) if part else None,
        part_passes,
        is_complete=traits.complete or traits.exact,
        needs_image=bool(part) and name != "IntegratedGradients",
    )


def _fewer(x: Tensor, changes: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a part of the work: few windows, few blocks of pixels."""
    blocks, windows = changes.pop("blocks", 0), changes.pop("windows", 0)
    if blocks:
        rows = torch.arange(x.shape[-2]) * blocks // x.shape[-2]
        columns = torch.arange(x.shape[-1]) * 2 // x.shape[-1]
        changes["feature_mask"] = (rows[:, None] * 2 + columns).repeat(1, x.shape[1], 1, 1)
    if windows:
        half = tuple(-(-size // windows) for size in x.shape[-2:])
        changes |= {"sliding_window_shapes": (x.shape[1], *half), "strides": (x.shape[1], *half)}
    return changes


def _hidden() -> list[Candidate]:
    """Captum's layer and neuron classes, one of each kind, on the layer that is read."""

    def of_layer(name: str, subject: Subject, **arguments: Any) -> Tensor:
        method = list_adapters()[name](subject.model, _layer(subject), nontarget="target")
        return method.attribute(subject.inputs, target=subject.target, **arguments)  # type: ignore[no-any-return]

    def of_neuron(name: str, subject: Subject) -> Tensor:
        method = list_adapters()[name](subject.model, _layer(subject))
        return method.attribute(subject.inputs, lambda value: value.flatten(1)[:, 0])  # type: ignore[no-any-return]

    def integrated(subject: Subject) -> Tensor:
        return of_layer("LayerIntegratedGradients", subject, baselines=subject.blank, n_steps=4)

    steps, few = STEPS * GRADIENT, 4 * GRADIENT
    return [
        Candidate("Captum, layers", "LayerGradCam", partial(of_layer, "LayerGradCam")),
        Candidate("Captum, layers", "LayerIntegratedGradients", integrated, lambda _: steps, part_passes=few),
        Candidate("Captum, neurons", "NeuronGradient", partial(of_neuron, "NeuronGradient")),
    ]


def _layer(subject: Subject) -> str:
    if not subject.layer:
        raise ValueError("the model has no layer whose units can be read on this image")
    return subject.layer


# -- Zennit, units ----------------------------------------------------------------------------------------------------


def _composites() -> list[str]:
    """Zennit's composites with absence options, the default first; none where Zennit is missing."""
    try:
        from zennit.composites import COMPOSITES

        import absence_plugins.zennit  # noqa: F401  (registers)
    except ImportError:
        return []
    found = [key.removeprefix("absence_") for key in COMPOSITES if key.startswith("absence_")]
    return sorted(found, key=lambda key: key != "epsilon_gamma")


def _units() -> list[Candidate]:
    """What commands do with a layer's units on one image: patches, names, pictures."""
    from contextlib import suppress

    from absence_plugins.commands.patches import default_scan

    with suppress(ImportError):  # before the clock runs; where Lucent is missing its row says so
        import absence_plugins.commands.maps.lucent  # noqa: F401

    scan = default_scan(False)

    def patches(mode: str, subject: Subject) -> None:
        from absence_plugins.methods.patches import find_extreme_patches

        half = max(1, subject.side // 2)
        find_extreme_patches(
            subject.model, _layer(subject), [subject.inputs[0]], k=1, size=half, stride=half, mode=mode, progress=False
        )

    def windows(subject: Subject) -> float:
        return math.prod(max(0, size - scan.size) // scan.stride + 1 for size in subject.inputs.shape[-2:])

    def label(subject: Subject) -> None:
        from absence_plugins.core.units import Layer

        Layer(_layer(subject)).read(subject.model, subject.inputs)

    def picture(layer: bool, subject: Subject) -> Tensor:
        from absence_plugins.commands.maps.unit import default_pictures
        from absence_plugins.core.units import Unit

        unit = Unit(_layer(subject) if layer else "", 0 if layer else subject.target)
        shape = tuple(subject.inputs.shape[1:])
        made = default_pictures(unit.of(subject.model), shape, _as_it_is, 0, steps=2)
        return torch.stack(list(made))

    def unit(family: str, name: str, run: Callable[[Subject], Tensor | None], *costs: Any) -> Candidate:
        passes, part_passes = costs or ((lambda _: 1.0), 0.0)
        return Candidate(family, name, run, passes, part_passes=part_passes, scales=False, needs_image=True)

    def steps(_subject: Subject) -> float:
        return PICTURE_STEPS * GRADIENT

    return [
        unit("commands", "patches (crop)", partial(patches, "crop"), windows, 4.0),
        unit("commands", "patches (mask)", partial(patches, "mask"), windows, 4.0),
        unit("commands", "label", label),
        unit("Lucent", "lucent:LAYER:UNIT", partial(picture, True), steps, 2 * GRADIENT),
        unit("Lucent", "lucent:labels:UNIT", partial(picture, False), steps, 2 * GRADIENT),
    ]


def _as_it_is(pictures: Tensor) -> Tensor:
    return pictures
