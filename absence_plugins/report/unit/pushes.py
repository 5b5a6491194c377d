"""Directions whose presence in a layer holds the unit down."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.hooks import evaluating
from absence_plugins.core.replacing import replacing
from absence_plugins.methods.directions import Influence, layer_features
from absence_plugins.methods.directions.patches import find_patches
from absence_plugins.methods.directions.positions import choose_prefix
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.sides import tiled
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study

KEY, HEADING = "directions", "Directions whose presence holds it down"
SHOWN, PATCHES = 3, 4  # directions, and patches of each


def directions_section(study: Study, unit: int) -> Section:
    """Effect of the layer's directions on the unit: those that hold it down significantly, strongest first."""
    if study.pairs is None:
        return Section.not_run(
            KEY,
            HEADING,
            "no directions were given; pass directions=8 to fit some, or fitted DirectionPairs (command line: "
            "--directions 8).",
        )
    layer, column = study.directions_layer, study.units.index(unit)
    try:
        if not _reaches(study, unit):
            return Section.not_run(
                KEY,
                HEADING,
                f"{layer or 'the output'} does not lie in front of the unit; directions_layer= must be the unit's "
                "layer, or one in front of it.",
            )
        found = study.influences
    except ValueError as reason:
        return Section.not_run(KEY, HEADING, f"{reason}. Name another layer with directions_layer=...")
    effects, q = found.effect[:, column], found.q[:, column]
    order = effects.argsort(stable=True).tolist()
    down = [i for i in order if effects[i] < 0 and q[i] <= found.level]
    up = [i for i in order[::-1] if effects[i] > 0 and q[i] <= found.level]
    panels = [_panel(study, found, i, column, f"Direction {i}") for i in down[:SHOWN]]
    panels += [_panel(study, found, i, column, f"Raises it: {i}") for i in up[:1]]
    same = " (the unit's layer: the effect is the direction's own entry for this unit)" if layer == study.layer else ""
    said = (
        f"The presence of {len(down)} of {len(effects)} directions of {layer or 'the output'}{same} lowers the unit (q "
        f"<= {found.level}); below, images' patches on which the strongest fire."
        if down
        else f"None of {len(effects)} directions of {layer or 'the output'}{same} lowers the unit significantly."
    )
    facts = [("Hold it down", f"{len(down)} of {len(effects)}"), ("Raise it", f"{len(up)} of {len(effects)}")]
    facts += [(f"Direction {i}", f"{float(effects[i]):+.3g}") for i in down[:SHOWN]]
    return Section(
        KEY,
        HEADING,
        said,
        tuple(panels),
        tuple(facts),
        {
            "layer": layer, "effect": effects.tolist(), "q": q.tolist(), "hold_down": down, "raise": up, "level": found.level,
            "images": found.n_samples, "corrected_over": found.q.numel(),
        },
    )  # fmt: skip


def _panel(study: Study, found: Influence, direction: int, column: int, title: str) -> Panel:
    effect, q = float(found.effect[direction, column]), float(found.q[direction, column])
    return Panel("image", tiled(_patches(study, direction)), title, f"effect {effect:+.3g}, q {q:.2g}")


@torch.no_grad()
def _reaches(study: Study, unit: int) -> bool:
    """Whether the unit's value depends on the directions' layer."""
    images, neuron = study.sample[:4], study.neuron(unit)
    generator = torch.Generator().manual_seed(study.settings.seed)

    def disturbed(maps: Tensor) -> Tensor:
        return maps + torch.randn(maps.shape, generator=generator).to(maps) * (1 + maps.std())

    with evaluating(study.model):
        before = neuron(images)
        with replacing(study.model, study.directions_at, disturbed):
            return not torch.equal(neuron(images), before)


def _patches(study: Study, direction: int) -> Tensor:
    """The image patches on which a direction is strongest, one per image, [n, C, h, w] as seen."""
    sample, model, at = study.sample, study.model, study.directions_at
    values = torch.cat(
        [
            study.directions.logits_of(layer_features(model, at, part), direction)
            for part in torch.split(sample, study.settings.batch_size)
        ]
    )  # [N, h, w]
    prefix = choose_prefix(None, model, at, sample[:1], at.shape(model, sample[:1]).positions)
    found = find_patches(values, sample.shape[-2:], most=PATCHES, prefix=prefix)
    shown = found.cut(torch.stack([study.picture(sample[i]) for i in found.images.tolist()]))
    return F.interpolate(shown, scale_factor=max(1, 24 // found.side[0]), mode="nearest")
