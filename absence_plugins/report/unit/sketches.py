"""Pictures that were made to drive the unit up and down."""

from __future__ import annotations

import torch

from absence_plugins.core.hooks import evaluating
from absence_plugins.report.plots.sides import Side, batched, unit_panels, what_they_show
from absence_plugins.report.unit.plugins import NotAvailable, provider
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study
from absence_plugins.report.unit.switched import switch_off

KEY, HEADING = "pictures", "Pictures made to drive it up and down"
REAL = 4  # images on either side
REMEDY = "raise the steps of its optimization (of the default pictures: pictures=partial(default_pictures, steps=1024))"


def pictures_section(study: Study, unit: int) -> Section:
    """Rendered up | highest real images | rendered down | lowest real images."""
    try:
        render = provider("pictures", study.pictures)
    except NotAvailable as reason:
        return Section.not_run(KEY, HEADING, f"{reason}.")
    values = study.values(unit)
    order = values.argsort(stable=True)
    count = min(REAL, max(1, len(values) // 2))
    real = {"highest": order.flip(0)[:count], "lowest": order[:count]}
    shape = tuple(study.picture(study.images([0])[0]).shape)
    made = [
        batched(one)[:1].clamp(0, 1) for one in render(study.neuron(unit), shape, study.prepare, study.settings.seed)
    ]
    with torch.no_grad(), evaluating(study.model):
        device = study.images([0]).device
        reached = [float(study.neuron(unit)(study.prepare(one).to(device))[0]) for one in made]
    sides = {
        name: Side(
            torch.stack([study.picture(image) for image in study.images(chosen.tolist())]), values[chosen].tolist()
        )
        for name, chosen in real.items()
    }
    low, high = float(values.min()), float(values.max())
    panels = unit_panels(Side(made[0], reached[:1]), Side(made[1], reached[1:]), unit="the unit", **sides)
    switched = switch_off(study, unit, int(order[-1]), values)
    return Section(
        KEY,
        HEADING,
        f"Optimized from the same noise, one picture brings the unit to {reached[0]:.3g}, the other to "
        f"{reached[1]:.3g}; on {len(values):,} real images it lies between {low:.3g} and {high:.3g}. "
        f"{what_they_show(reached[0], reached[1], low, high, REMEDY)} Such pictures leave the world of images: read "
        f"shapes, not brightness.{switched.sentence}",
        (*panels, *switched.panels),
        (
            ("Up / down", f"{reached[0]:.3g} / {reached[1]:.3g}"),
            ("Real, highest / lowest", f"{high:.3g} / {low:.3g}"),
            *switched.facts,
        ),
        {"maximizing": reached[0], "minimizing": reached[1], "highest": high, "lowest": low, **switched.data},
    )
