"""From a map to reasons, on a page's row: the smallest missing set, and which silent units carry what is missing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from absence_plugins.commands.photograph_row import outline
from absence_plugins.commands.question import Question
from absence_plugins.commands.rows import denormalize
from absence_plugins.core.collecting import importing
from absence_plugins.core.feature_space import find_last_features
from absence_plugins.methods.carriers import LayerCarriers, find_carriers
from absence_plugins.methods.missing import Search, missing_set
from absence_plugins.methods.regions import segment
from absence_plugins.methods.regions.measure import choose_batch
from absence_plugins.relevance import RelevanceError
from absence_plugins.report import Panel

NAMED = 3  # silent units by their numbers
STEPS = 24  # of the change that switches the target off
PIECES = 16  # regions of a photograph that can be inserted
QUICK = Search(budget=0, proof=0)  # one order, then members are left out


def switch_off(asked: Question, seed: int) -> tuple[str, tuple[Panel, ...]]:
    """The image, changed as little as was found until the target no longer leads: a sentence and two pictures.

    In phases of a photograph, else in pixels. Both empty where the target is not the decision, or Lucent is missing.
    """
    if asked.own.single or int(asked.outputs.argmax(1)) != int(asked.target) or asked.own.summed:
        return "", ()
    try:
        with importing():
            from absence_plugins.lucent import accentuate
    except ImportError:
        return "", ()
    rival = float(asked.outputs[0].topk(2).values[1])
    found = accentuate(
        asked.loaded.model,
        f"-labels:{asked.target}",
        asked.picture,
        goal=rival,
        space="phase" if asked.is_photograph else "pixels",
        steps=STEPS,
        jitter=4 if asked.is_photograph else 1,
        preprocess=asked.loaded.preprocessing.normalize,
        seed=seed,
        progress=False,
    )
    from absence_plugins.lucent.accentuation import VISIBLE

    if not found.is_reached:
        return f"Not switched off: {STEPS} steps did not take {asked.brief} below the second highest output.", ()
    said = f"{asked.brief} from {found.before:.2f} to {found.after:.2f}, below the second highest output as it was"
    size = f"{found.distance:.3f} root mean square of pixels in [0, 1]"
    if found.distance < VISIBLE:
        return f"Switched off: a change that is too small to be seen ({size}) takes {said}.", ()
    change = (found.picture - found.photograph).sum(0, keepdim=True)
    panels = (
        Panel("image", found.picture, "Switched off", f"{asked.brief}: {found.before:.2f} → {found.after:.2f}"),
        Panel("signed", change, "What changed", f"{size}.", positive="brighter", negative="darker"),
    )
    return f"Switched off: the least change that was found and takes {said}: {size}.", panels


def find_smallest(asked: Question, reference: Tensor) -> tuple[str, tuple[Panel, ...]]:
    """The fewest pieces of the nearest reference whose insertion takes the decision away: a sentence and a picture.

    reference: [1, C, H, W]. Pieces are pixels, of a photograph regions. Both empty where the target is not the
    decision; where no pieces of this reference take it away, the sentence says why.
    """
    pieces = segment(denormalize(reference[0], asked.loaded), PIECES) if asked.is_photograph else None
    if asked.own.single or int(asked.outputs.argmax(1)) != int(asked.target):
        return "", ()
    try:
        search = replace(QUICK, batch_size=choose_batch(asked.x[0]), way=asked.way)
        found = missing_set(asked.loaded.model, asked.x, reference, pieces=pieces, empty=asked.blank, search=search)
    except (RelevanceError, ValueError, TypeError) as reason:  # the maps of another method do not need it
        return f"No smallest missing set: {reason}.", ()
    changed = outline(denormalize(found.image[0], asked.loaded), found.mask.any(0))
    caption = f"{asked.brief} leads by {found.before:.2f} before and {found.after:.2f} with them."
    title = f"The smallest {'set' if asked.is_photograph else 'missing set'}: {len(found)} {found.thing}{'s' * (len(found) > 1)}"
    sentence = f"The smallest missing set: {found.sentence(asked.loaded.categories)}"
    if asked.is_photograph:
        sentence = (
            f"The fewest regions of the nearest reference whose insertion takes the decision away: {len(found)} of "
            f"{found.pieces}; {asked.brief} leads by {found.before:.2f} before and {found.after:.2f} with them, and none of them "
            "can be left out. They also cover what is there, so that it need not be what they show that was missing."
        )
    return sentence, (Panel("image", changed, title, caption),)


def name_carriers(asked: Question, reference: Tensor) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What the units that are silent on the image and active on its nearest reference are worth.

    reference: [1, C, H, W]. Returns a sentence and facts; both empty where the model has no hidden units, or holds an
    operation without an exact relevance (the sentence then says why).
    """
    model = asked.loaded.model
    with torch.no_grad():
        layer = find_last_features(model, asked.x)
    if not layer.name:
        return "", ()
    try:
        found = find_carriers(model, asked.x, reference, asked.own, layers=layer)
    except (RelevanceError, ValueError) as reason:  # the maps of another method do not need it
        return f"Not divided among units: {reason}.", ()
    own, total = found.layers[layer.name], float(found.difference[0])
    units = found.silent(layer.name, own.relevance.shape[1])
    worth = sum(one.relevance for one in units)
    if not units:
        best = found.strongest(layer.name, 1)[0]
        return (
            f"No unit in front of {layer.name} is silent here and active there. {_capital(best.words().replace(f' of {layer.name}', ''))}.",
            (),
        )
    names = ", ".join(str(one.unit) for one in units[:NAMED])
    named = f"{names} and {len(units) - NAMED} more" if len(units) > NAMED else names
    sentence = (
        f"Of {own.relevance.shape[1]} units in front of {layer.name}, {len(units)} {'is' if len(units) == 1 else 'are'} silent "
        f"here and active on the nearest reference (unit{'s' * (len(units) > 1)} {named}): their silence is worth {worth:+.2f} "
        f"of the {total:+.2f} by which {asked.brief} differs between the two."
    )
    return sentence, (("Silent units", f"{worth:+.2f} of {total:+.2f}"), *_strongest(own, total))


def _strongest(own: LayerCarriers, total: float) -> tuple[tuple[str, str], ...]:
    unit = int(own.relevance[0].abs().argmax())
    return ((f"Strongest unit: {unit}", f"{float(own.relevance[0, unit]):+.2f} of {total:+.2f}"),)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
