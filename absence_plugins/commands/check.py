"""What works on a model: its outputs, its layers, and every method on one image, in seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.check_candidates import FAMILIES, Subject, candidates, rejected
from absence_plugins.commands.check_methods import (
    DEFAULTS,
    LARGE_SHARE,
    NOT_TRIED,
    REJECTED,
    SHARE,
    SPENT,
    MethodCheck,
    recommend_method,
    recommended,
    try_method,
)
from absence_plugins.commands.check_structure import (
    LayerCheck,
    OutputCheck,
    check_layers,
    check_outputs,
    find_read_layer,
    make_inputs,
)
from absence_plugins.commands.models import LoadedModel
from absence_plugins.core.names import spell_name
from absence_plugins.core.randomness import seeded
from absence_plugins.core.reading import plain_model
from absence_plugins.core.results import Result
from absence_plugins.core.table import align
from absence_plugins.data.folders import describe_frames
from absence_plugins.data.pictures import count_frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LayerCheck", "MethodCheck", "ModelCheck", "OutputCheck", "check_loaded", "check_model", "recommend_method"]

WIDTH = 100  # characters of a reason in a table
MADE = "a made one (smooth noise)"
BUDGET = 20.0  # seconds


@dataclass(frozen=True)
class ModelCheck(Result):
    """What :func:`check_model` found.

    Attributes:
        model: its name.
        image: which image, and its shape.
        outputs: what the model returns.
        layers: those that are shown.
        layer_count: how many there are.
        methods: every method on this image.
        recommended: the method that ``explain`` uses by default, as ``--method`` takes it; "" if none works.
        seconds: of the whole check.
        notes: on the model's weights and preprocessing.
    """

    model: str
    image: str
    outputs: OutputCheck
    layers: tuple[LayerCheck, ...]
    layer_count: int
    methods: tuple[MethodCheck, ...]
    recommended: str
    seconds: float
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """Outputs, layers and methods as text."""
        parts = [
            self.model,
            *self.notes,
            "",
            *self._outputs(),
            "",
            *self._layers(),
            "",
            *self._methods(),
            "",
            self.advice,
        ]
        return "\n".join(parts)

    def _heading(self) -> str:
        return f"ModelCheck of {self.model}"

    def figure(self, ax: Any = None) -> Figure:
        """Seconds per map of every method that works; dark: the recommended one. Needs matplotlib.

        ax: axes to draw into.
        """
        from absence_plugins.report.plots.palette import INK, PALE
        from absence_plugins.report.plots.placing import draw_bars

        working = [one for one in self.methods if one.works == "yes" and one.seconds is not None]
        colors = [INK if one.method == self.recommended else PALE for one in working]
        names = [f"{one.family}: {one.method}" for one in working]
        return draw_bars(ax, names, [one.seconds or 0.0 for one in working], "seconds per map", colors=colors)

    @property
    def advice(self) -> str:
        """Which method to use, in a sentence."""
        if not self.recommended:
            return "No method of explain works on this model and image; the reasons stand above."
        found = next(one for one in self.methods if one.method == self.recommended)
        error = "" if found.error is None else f"its sum is {_percent(found.error)} off, "
        about = "about " if found.is_estimate else ""
        return f"Recommended: --method {self.recommended} ({error}{about}{_seconds(found.seconds)} per map)."

    def to_dict(self) -> dict[str, Any]:
        """Plain strings and numbers, ready for JSON."""
        found = asdict(self)
        for one in found["methods"]:
            if one["seconds"] is not None and one["seconds"] == float("inf"):
                one["seconds"] = None
        return found

    def __repr__(self) -> str:
        working = sum(one.works == "yes" for one in self.methods)
        return (
            f"ModelCheck({self.model}: {self.outputs.count}, {self.layer_count} layers, {working} of "
            f"{len(self.methods)} methods work, recommended: {self.recommended or 'none'})"
        )

    def _outputs(self) -> list[str]:
        rows = [
            ("image", self.image),
            ("returns", self.outputs.returned),
            ("explained", f"{self.outputs.count}, {self.outputs.kind}"),
            ("predicted", f"{self.outputs.name or f'output {self.outputs.predicted}'}, {self.outputs.score:.4g}"),
        ]
        if self.outputs.caution:
            rows.append(("caution", self.outputs.caution))
        if self.outputs.reason:
            rows.append(("rejected", self.outputs.reason))
        return align(rows, left=(0, 1))

    def _layers(self) -> list[str]:
        rows = [("layer", "module", "channels", "axis", "positions", "read")]
        for one in self.layers:
            side = "before its nonlinearity" if one.side == "input" else "output"
            positions = " x ".join(map(str, one.positions))
            rows.append((
                one.layer, one.module, str(one.channels or "-"), one.axis or "-", positions or "-",
                _short(one.reason) if one.reason else side,
            ))  # fmt: skip
        shown = len(self.layers)
        more = [f"{shown} of {self.layer_count} layers; --all shows all."] if shown < self.layer_count else []
        return align(rows, left=(0, 1, 3, 5)) + more

    def _methods(self) -> list[str]:
        rows = [("family", "method", "works", "sum off by", "seconds", "why not")]
        for one in self.methods:
            seconds = "-" if one.seconds is None else f"{'~' if one.is_estimate else ''}{_seconds(one.seconds, '')}"
            error = "-" if one.error is None else _percent(one.error)
            rows.append((one.family, one.method, one.works, error, seconds, _short(one.reason)))
        lines = align(rows, left=(0, 1, 2, 5))
        if any(one.is_estimate for one in self.methods):
            lines.append("~: estimated from a part of the work, or from a smaller image.")
        left_out = sum(one.reason == SPENT for one in self.methods)
        if left_out:
            lines.append(f"{left_out} methods were not tried, as the time was spent; --budget SECONDS gives more.")
        return lines


def check_model(
    model: nn.Module,
    inputs: Tensor | None = None,
    *,
    blank: Tensor | None = None,
    budget: float = BUDGET,
    every_layer: bool = False,
    name: str = "",
    image: str = "",
    notes: Sequence[str] = (),
    progress: bool = False,
) -> ModelCheck:
    """Which outputs and layers a model has, and which methods work on it, tried on one image.

    Every method explains the predicted class against an image without content: R > 0 raises that output, R < 0 holds it
    down. A method that fails is a row with its reason. The model, its gradients and the random state are as before.

    Args:
        model: in evaluation mode.
        inputs: one image [1, C, H, W] as the model takes it; None: a made one, of a size that the model takes.
        blank: an image without content [1, C, H, W]; default: zeros.
        budget: seconds. A method that would take more than a fortieth is tried on a smaller image or a part of its
            work, and its time estimated; methods whose turn comes after the time is spent are not tried.
        every_layer: all layers, not only the outer ones.
        name: of the model, for the table; default: its class.
        image: likewise, of the image.
        notes: to be shown with the model's name.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: several images, or a model that runs on no made image; what its forward raises, if it does.

    >>> from absence_plugins.data import digits_cnn
    >>> found = check_model(digits_cnn(), budget=0.5)
    >>> found.outputs.count, found.outputs.kind, found.recommended
    ('10 outputs', 'logits', 'relevance')
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    started = time.perf_counter()
    with seeded(0):
        if inputs is None:
            inputs, image = make_inputs(model), MADE
        if len(inputs) != 1:
            raise ValueError(f"check_model takes one image, got {len(inputs)}")
        outputs = check_outputs(model, inputs)
        layers, count = check_layers(model, inputs, every_layer)
        subject = replace(Subject.of(model, inputs, blank), layer=find_read_layer(layers))
        small = subject.shrink()
        found = [MethodCheck(family, method, REJECTED, reason=why) for family, method, why in rejected()]
        for candidate in tqdm(candidates(), desc="trying methods", disable=not progress, leave=False):
            is_default = candidate.method in DEFAULTS
            if time.perf_counter() - started > budget and not is_default:
                found.append(MethodCheck(candidate.family, candidate.method, NOT_TRIED, reason=SPENT))
                continue
            share = LARGE_SHARE if is_default else SHARE
            found.append(try_method(candidate, subject, small, at_most=share * budget))
    found.sort(key=lambda one: (FAMILIES.index(one.family), one.works != "yes"))
    shape = " x ".join(map(str, inputs.shape[1:]))
    return ModelCheck(
        name or type(plain_model(model)).__name__,
        f"{image or 'as given'}, {shape}",
        outputs,
        layers,
        count,
        tuple(found),
        recommended(found),
        time.perf_counter() - started,
        tuple(notes),
    )


def check_loaded(
    loaded: LoadedModel,
    image: Path | None = None,
    *,
    name: str = "",
    budget: float = BUDGET,
    every_layer: bool = False,
    progress: bool = False,
) -> ModelCheck:
    """:func:`check_model` on an image file, or on a made picture of the size that the model takes.

    Raises:
        ValueError: the image cannot be read; as :func:`check_model`.
    """
    prepared = loaded.preprocessing
    frames: tuple[str, ...] = ()
    if image is None:
        low = torch.rand(
            1, prepared.channels, *(-(-prepared.size // 8),) * 2, generator=torch.Generator().manual_seed(0)
        )
        picture = nn.functional.interpolate(low, (prepared.size,) * 2, mode="bicubic")[0].clamp(0, 1)
    else:
        picture, count = prepared.picture(image), count_frames(image)
        frames = describe_frames([(spell_name(image.name), count)] if count > 1 else [])
    found = check_model(
        loaded.model,
        prepared.normalize(picture)[None],
        blank=prepared.empty[None].expand(1, -1, *picture.shape[1:]).contiguous(),
        budget=budget,
        every_layer=every_layer,
        name=name,
        image=MADE if image is None else spell_name(image.name),
        notes=(*loaded.notes, *frames),
        progress=progress,
    )
    return replace(found, outputs=replace(found.outputs, name=loaded.name(found.outputs.predicted)))


def _short(text: str) -> str:
    return shorten(text if len(text) < WIDTH else text.partition("; ")[0], WIDTH, placeholder=" ...")


def _percent(value: float) -> str:
    return "< 0.01 %" if value < 1e-4 else f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


def _seconds(value: float | None, unit: str = " s") -> str:
    if value is None:
        return "-"
    if value > 86400:
        return "over a day"
    return f"{value:.2g}{unit}" if value < 10 else f"{value:.0f}{unit}"
