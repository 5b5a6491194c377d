"""Which units in front of the classifier carry what an image lacks: a sentence and facts of a page's row."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.commands.question import Question
from absence_plugins.core.feature_space import find_last_features
from absence_plugins.methods.carriers import LayerCarriers, find_carriers
from absence_plugins.relevance import RelevanceError

NAMED = 3  # silent units by their numbers


def name_carriers(asked: Question, reference: Tensor) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What the units that are silent on the image and active on its nearest reference are worth.

    reference: [1, C, H, W]. Returns a sentence and facts; both empty where the model has no hidden units, or holds an
    operation without an exact relevance.
    """
    model = asked.loaded.model
    with torch.no_grad():
        layer = find_last_features(model, asked.x)
    if not layer.name:
        return "", ()
    try:
        found = find_carriers(model, asked.x, reference, asked.own, layers=layer)
    except (RelevanceError, ValueError):  # the maps of another method do not need it
        return "", ()
    own, total = found.layers[layer.name], float(found.difference[0])
    units = found.silent(layer.name, own.relevance.shape[1])
    worth = sum(one.relevance for one in units)
    if not units:
        best = found.strongest(layer.name, 1)[0]
        return f"No unit in front of {layer.name} is silent here and active there. {_capital(best.words())}.", ()
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
