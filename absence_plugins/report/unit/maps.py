"""Maps of the unit on example images: where it is high and something is missing, and where it is low."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.hooks import evaluating
from absence_plugins.core.maps import absence_part, sum_channels
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.plugins import NotAvailable, provider
from absence_plugins.report.unit.references import compared
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study

HIGH, HIGH_HEADING = "maps_high", "Where it is high: what is missing there"
LOW, LOW_HEADING = "maps_low", "Where it is low: what holds it down"
UP, DOWN = "raises the unit", "holds the unit down"

Maps = Callable[..., Any]  # a tensor, or a pair of it and the method's name


def high_section(study: Study, unit: int) -> Section:
    """Images on which the unit is high: the map against blank, and the map against references on which it is low."""
    try:
        maps = provider("maps", study.maps)
    except NotAvailable as reason:
        return Section.not_run(HIGH, HIGH_HEADING, f"{reason}.")
    numbers = study.values(unit).argsort(descending=True, stable=True)[: study.settings.examples].tolist()
    try:
        found = compared(study, unit, numbers)
    except ValueError as reason:
        return Section.not_run(HIGH, HIGH_HEADING, f"{reason}; pass more images.")
    panels: list[Panel] = []
    shares, examples = [], []
    methods: list[str] = []
    for x, value, references, lower, number in zip(
        found.images, found.values, found.references, found.reference_values, numbers, strict=True
    ):
        (blank, by_blank), (each, by_references) = (
            drawn_by(study, unit, maps, x[None], study.blank(x[None])),
            drawn_by(study, unit, maps, x.expand_as(references), references),
        )
        blank = blank[0]
        methods += [by_blank, by_references]
        signed = each.mean(0)
        missing = absence_part(x.expand_as(references), references, study.blank(references)) * each
        absent, raised = float(missing.clamp(min=0).sum()) / len(each), float(each.clamp(min=0).sum()) / len(each)
        share = absent / raised if raised > 0 else 0.0
        shares.append(share)
        picture, mean = study.picture(x), float(lower.mean())
        panels += [
            Panel("image", picture, study.name_of(number), f"the unit: {float(value):.3g}"),
            _signed(blank, picture, "Against blank", "Only what is there can show."),
            Panel("image", study.picture(references[0]), "Nearest reference", f"the unit: {float(lower[0]):.3g}"),
            _signed(signed, picture, "Against references", f"Mean over {len(each)}; their mean value: {mean:.3g}."),
            Panel.over(
                picture, "absence", sum_channels(missing.mean(0).clamp(min=0).cpu()), "Of it, what is missing",
                f"{share:.0%} of what raises it.", positive="its absence raises the unit",
            ),
        ]  # fmt: skip
        examples.append(
            {"image": number, "file": study.file_of(number), "value": float(value), "reference_values": lower.tolist(), "absence_share": share,
             "completeness_error": float(signed.sum()) - (float(value) - mean)}
        )  # fmt: skip
    error = max(abs(one["completeness_error"]) for one in examples)
    return Section(
        HIGH,
        HIGH_HEADING,
        f"{_images(len(numbers))} on which the unit is highest. Against a blank image only what is there can raise "
        f"it. Against real images near by ({found.pool}), it is also raised by what they have and this one lacks: the "
        f"absence part, {_range(shares)} of all that raises it. {_made(methods)}",
        tuple(panels),
        (("Absence part", _range(shares)), ("Largest completeness error", f"{error:.1g}")),
        {"examples": examples, "references_from": found.pool, "methods": _once(methods)},
    )


def low_section(study: Study, unit: int) -> Section:
    """Images on which the unit is low: negative relevance is content that holds it down (the non-target view)."""
    try:
        maps = provider("maps", study.maps)
    except NotAvailable as reason:
        return Section.not_run(LOW, LOW_HEADING, f"{reason}.")
    values = study.values(unit)
    numbers = values.argsort(stable=True)[: study.settings.examples].tolist()
    panels: list[Panel] = []
    examples = []
    methods: list[str] = []
    for number in numbers:
        x = study.images([number])
        (signed,), method = drawn_by(study, unit, maps, x, study.blank(x))
        methods.append(method)
        picture = study.picture(x[0])
        down, up = float((-signed).clamp(min=0).sum()), float(signed.clamp(min=0).sum())
        panels += [
            Panel("image", picture, study.name_of(number), f"the unit: {float(values[number]):.3g}"),
            _signed(signed, picture, "Against blank", f"Blue: {down:.3g} in all; red: {up:.3g}."),
        ]
        examples.append(
            {
                "image": number,
                "file": study.file_of(number),
                "value": float(values[number]),
                "holds_down": down,
                "raises": up,
            }
        )
    low = ", ".join(f"{one['value']:.3g}" for one in examples)
    return Section(
        LOW,
        LOW_HEADING,
        f"{_images(len(numbers))} on which the unit is lowest. Blue is content that holds it down: what the unit "
        "encodes as absent. "
        f"{_made(methods)}",
        tuple(panels),
        (("The unit there", low), ("Held down by", ", ".join(f"{one['holds_down']:.3g}" for one in examples))),
        {"examples": examples, "methods": _once(methods)},
    )


def drawn(study: Study, unit: int, maps: Maps, inputs: Tensor, baselines: Tensor) -> Tensor:
    """Signed maps [B, C, H, W] of the unit on inputs against one baseline each; checked.

    Raises:
        ValueError: maps of another shape, or with NaN.
    """
    return drawn_by(study, unit, maps, inputs, baselines)[0]


def drawn_by(study: Study, unit: int, maps: Maps, inputs: Tensor, baselines: Tensor) -> tuple[Tensor, str]:
    """As :func:`drawn`, and the name of the method: as ``maps`` returns it beside the maps, else its own name."""
    with evaluating(study.model):
        signed: Any = maps(study.neuron(unit), inputs, baselines)
    method = getattr(maps, "__name__", type(maps).__name__)
    if isinstance(signed, tuple) and len(signed) == 2:
        signed, method = signed
    if not isinstance(signed, Tensor) or signed.shape != inputs.shape:
        shape = tuple(signed.shape) if isinstance(signed, Tensor) else type(signed).__name__
        raise ValueError(
            f"maps(unit, inputs, baselines) must return maps of the inputs' shape {tuple(inputs.shape)}, got {shape}"
        )
    if not bool(torch.isfinite(signed).all()):
        raise ValueError(f"the maps of unit {unit} hold NaN or infinite values; use another method for maps=")
    return signed.detach(), str(method)


def _signed(signed: Tensor, picture: Tensor, title: str, caption: str) -> Panel:
    return Panel.over(picture, "signed", sum_channels(signed.cpu()), title, caption, positive=UP, negative=DOWN)


def _once(methods: list[str]) -> list[str]:
    return list(dict.fromkeys(methods))


def _made(methods: list[str]) -> str:
    return f"Maps made with: {'; '.join(_once(methods))}."


def _images(count: int) -> str:
    return "The image" if count == 1 else f"The {count} images"


def _range(shares: list[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"
