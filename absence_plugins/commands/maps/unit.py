"""The maps and pictures of a unit's report: Captum's and Lucent's, with absence options; registered as entry points."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.maps.relevance import DEFAULT_RULE
from absence_plugins.core.units import UnitModel
from absence_plugins.relevance import RelevanceError, relevance

if TYPE_CHECKING:
    from absence_plugins.lucent import Accentuation

RELEVANCE, INTEGRATED = "relevance of differences", "integrated gradients"  # as the page calls them
STEPS, CHUNK = 50, 64  # of integrated gradients; points at a time
CHANGE_STEPS = 32  # of an accentuation
PICTURE_STEPS = 256  # of two pictures, one that drives the unit up and one that drives it down


def default_maps(unit: nn.Module, inputs: Tensor, baselines: Tensor) -> tuple[Tensor, str]:
    """Signed maps [B, C, H, W] of a unit on inputs against one baseline each, and which method made them.

    Relevance of differences, which sums to u(x) - u(baseline) exactly; integrated gradients where the model holds an
    operation that has no exact relevance.

    unit: inputs [B, C, H, W] -> [B]. Sign: R > 0 raises the unit, R < 0 holds it down.

    >>> unit = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False), nn.Flatten(0))
    >>> _ = unit[1].weight.data.copy_(torch.tensor([[1.0, -1.0, 0.0, 2.0]]))
    >>> signed, method = default_maps(unit, torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    >>> signed.flatten().tolist(), method
    ([1.0, -1.0, 0.0, 2.0], 'relevance of differences')
    """
    try:
        return relevance(unit, inputs, baselines, rule=DEFAULT_RULE).attribution, RELEVANCE
    except RelevanceError:
        return integrated_gradients(unit, inputs, baselines), INTEGRATED


def integrated_gradients(unit: nn.Module, inputs: Tensor, baselines: Tensor) -> Tensor:
    """Integrated gradients with Captum, one baseline per input; arguments and sign as :func:`default_maps`."""
    from absence_plugins.captum import AbsenceIntegratedGradients

    method = AbsenceIntegratedGradients(unit, nontarget="target")
    return method.attribute(  # type: ignore[no-any-return]
        inputs, baselines=baselines, target=0, n_steps=STEPS, internal_batch_size=max(CHUNK, len(inputs))
    ).detach()


def default_change(
    unit: UnitModel, picture: Tensor, prepare: Callable[[Tensor], Tensor], values: Tensor, seed: int
) -> Accentuation:
    """A picture [C, H, W] in [0, 1], changed as little as was found until the unit lies below its values on real
    images.

    In phases, so that textures move and no grain appears; below 96 pixels a side in pixels.
    """
    from absence_plugins.commands.maps.lucent import SMALL
    from absence_plugins.lucent import accentuate

    is_small = min(picture.shape[1:]) < SMALL
    return accentuate(
        unit.model,
        unit.unit,
        picture,
        data_range=values,
        space="pixels" if is_small else "phase",
        steps=CHANGE_STEPS,
        jitter=1 if is_small else 4,
        preprocess=prepare,
        seed=seed,
        progress=False,
    )


def default_pictures(
    unit: UnitModel,
    shape: tuple[int, ...],
    prepare: Callable[[Tensor], Tensor],
    seed: int,
    *,
    steps: int = PICTURE_STEPS,
) -> tuple[Tensor, Tensor]:
    """Two pictures [C, H, W] in [0, 1] from the same noise, one that drives the unit up and one that drives it down,
    with Lucent.

    unit: a :class:`~absence_plugins.core.units.UnitModel` (``Unit(...).of(model)``); shape: (C, H, W); prepare: from
    pictures to model inputs; steps: of the
    optimization. Below 96 pixels a side Lucent's random shifts and rotations are left out: they are made for larger
    images.
    """
    from lucent.optvis import param

    from absence_plugins.commands.maps.lucent import SMALL
    from absence_plugins.lucent import absence_contrast, render_vis

    channels, height, width = shape
    options: dict[str, Any] = {} if min(height, width) >= SMALL else {"transforms": []}
    colors = {"channels": channels} if channels != 3 else {}
    rendered = render_vis(
        unit.model,
        absence_contrast(unit.unit.at, unit.index) if unit.layer else absence_contrast("", unit.index, kind="class"),
        lambda: param.image(width, height, batch=2, **colors),
        thresholds=(steps,),
        preprocess=prepare,
        fixed_image_size=(height, width),
        progress=False,
        seed=seed,
        **options,
    )
    up, down = torch.as_tensor(rendered[0]).permute(0, 3, 1, 2).float()
    return up, down
