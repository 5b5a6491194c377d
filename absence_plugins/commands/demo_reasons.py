"""From the map to the reason: which units carry a missing stroke, and the image with the digit switched off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins import Layer, ReferenceSet, Unit
from absence_plugins.commands.photograph_row import outline
from absence_plugins.data import DigitData
from absence_plugins.lucent import Accentuation, accentuate
from absence_plugins.methods.carriers import Carriers, ConditionalMaps, conditional_maps, find_carriers
from absence_plugins.methods.missing import missing_set
from absence_plugins.report import Panel, Row

REFERENCES = 4  # of which the one that needs the fewest pixels is taken
LAYER = "relu4"  # of the bundled network, in front of the logits
STEPS, STRENGTH = 128, 5.0

HOW_TO_READ = (
    (
        "The smallest missing set",
        "Pixels of a near image of the other digit, inserted until the network no longer prefers the first digit, and then "
        "left out again one by one where they were not needed. That none can be left out was measured: one forward each.",
    ),
    (
        "Units that carry it",
        "The difference of the logit between the image and its 8 nearest references is divided among the units of the "
        "last hidden layer, exactly; those included that are silent on the image. The map through one unit and the map "
        "through all others add up to the whole map.",
    ),
    (
        "Switched off",
        "The least change of the image, found by gradients and then cut back, after which the logit is 0. What it adds "
        "is what was missing.",
    ),
)


@dataclass(frozen=True, eq=False)
class Asked:
    """An image x [1, 1, 32, 32] of digit a, which is no b."""

    model: nn.Module
    data: DigitData
    x: Tensor
    a: int
    b: int

    @property
    def references(self) -> Tensor:
        """The nearest images of digit b [8, 1, 1, 32, 32]."""
        pool = ReferenceSet(self.data.train_images, self.data.train_labels, contrast=self.b)
        nearest = pool.nearest(self.x)
        assert isinstance(nearest, Tensor)
        return nearest.movedim(1, 0)


def missing_row(asked: Asked) -> Row:
    """The fewest pixels of a b whose insertion takes the decision away, each of them needed."""
    pool = ReferenceSet(asked.data.train_images, asked.data.train_labels, contrast=asked.b, k=REFERENCES)
    found = missing_set(asked.model, asked.x, pool, foil=asked.b)
    first, other = _article(asked.a), _article(asked.b)
    inserted = outline(found.image[0], found.mask.any(0))
    panels = (
        Panel("image", asked.x[0], f"The image: {first}", f"Logit {asked.a} leads by {found.before:.1f}."),
        Panel("image", found.given.reference[0], f"Near it: {other}", "The pixels are taken from here."),
        Panel("image", inserted, "The missing pixels inserted", f"Now logit {asked.b} leads by {-found.after:.2f}."),
    )
    facts = (
        ("Pixels", f"{len(found)} of {asked.x[0].numel()}"),
        (f"Logit {asked.a} minus logit {asked.b}", f"{found.before:.1f} → {found.after:.2f}"),
        ("Without any one of them", f"at least {float(found.certificate.min()):.2f}"),
    )
    return Row(f"The smallest missing set: {asked.a}, not {asked.b}", found.sentence(), panels, facts)


def carrier_row(asked: Asked) -> Row:
    """The silent unit that does most for logit a: its map, and the images on which it is most active."""
    found = find_carriers(asked.model, asked.x, asked.references, asked.a, layers=LAYER)
    silent = found.silent(LAYER, 1)
    unit = (silent or found.strongest(LAYER, 1))[0]
    maps = conditional_maps(asked.model, asked.x, asked.references, [unit.unit], asked.a, layer=LAYER)
    share = unit.relevance / float(found.difference[0])
    sentence = (
        f"Of {found.layers[LAYER].relevance.shape[1]} units in the last hidden layer, {_said(unit.unit, unit.is_silent)} on "
        f"this {asked.a}, and {unit.reference_value:.1f} on the {asked.b}s. What it would have done holds logit {asked.a} down: "
        f"its silence is worth {unit.relevance:.1f} of the {float(found.difference[0]):.1f} by which the logit is higher here "
        f"({share:.0%}). No tool that looks at active units can show it."
    )
    return Row(f"Which unit misses the {asked.b}", sentence, _carrier_panels(asked, maps, unit.unit), _facts(found))


def _said(unit: int, is_silent: bool) -> str:
    return f"unit {unit} is silent" if is_silent else f"unit {unit} is weaker"


def _carrier_panels(asked: Asked, maps: ConditionalMaps, unit: int) -> tuple[Panel, ...]:
    words: dict[str, Any] = {"positive": f"raises logit {asked.a}", "negative": f"holds logit {asked.a} down"}
    (own,), rest, under = maps.maps[:, 0], maps.rest[0], asked.x[0]
    said = f"Sums to {float(own.sum()):+.1f}."
    through = Panel("signed", own, f"Through unit {unit} alone", said, underlay=under, **words)
    said = f"Sums to {float(rest.sum()):+.1f}."
    others = Panel("signed", rest, "Through all other units", said, underlay=under, **words)
    with torch.no_grad():
        values = Unit(Layer(LAYER, side="output"), unit).values(asked.model, asked.data.test_images)
    best = values.argsort(descending=True, stable=True)[:2].tolist()
    examples = tuple(
        Panel(
            "image",
            asked.data.test_images[number],
            f"Unit {unit} is at {float(values[number]):.1f}",
            f"Held-out image {number}: {_article(int(asked.data.test_labels[number]))}.",
        )
        for number in best
    )
    return (Panel("image", asked.x[0], f"The image: unit {unit} is silent"), through, others, *examples)


def _article(digit: int) -> str:
    return f"{'an' if digit == 8 else 'a'} {digit}"


def _facts(found: Carriers) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"Unit {one.unit}" + (", silent here" if one.is_silent else ""), f"{one.relevance:+.1f}")
        for one in found.strongest(LAYER, 5)
    )


def accentuation_row(asked: Asked, *, seed: int = 0, progress: bool = True) -> Row:
    """The image, changed as little as was found until logit a is 0."""
    with torch.no_grad():
        values = asked.model(asked.data.test_images)[:, asked.a]
    found = accentuate(
        asked.model,
        f"-labels:{asked.a}",
        asked.x[0],
        goal=0.0,
        data_range=values,
        space="pixels",
        steps=STEPS,
        strength=STRENGTH,
        preprocess=False,
        jitter=1,
        seed=seed,
        progress=progress,
    )
    with torch.no_grad():
        says = int(asked.model(found.picture[None]).argmax())
    sentence = (
        f"What would have to be there for this to be no {asked.a}? The smallest change that was found and takes the logit from "
        f"{found.before:.1f} to {found.after:z.1f}: {found.distance:.2f} root mean square, pixels in [0, 1]. The network now "
        f"says {says}."
    )
    return Row(f"The {asked.a}, switched off", sentence, _change_panels(asked, found), _change_facts(found))


def _change_panels(asked: Asked, found: Accentuation) -> tuple[Panel, ...]:
    change = found.picture - found.photograph
    return (
        Panel("image", found.photograph, "The image", f"Logit {asked.a}: {found.before:.1f}."),
        Panel("image", found.picture, "Switched off", f"Logit {asked.a}: {found.after:z.1f}."),
        Panel(
            "signed",
            change,
            "What changed",
            "Red: ink that was missing.",
            underlay=found.photograph,
            positive="brighter",
            negative="darker",
        ),
    )


def _change_facts(found: Accentuation) -> tuple[tuple[str, str], ...]:
    facts = [("Change of the pixels", f"{found.distance:.3f}"), ("Of the first layer", f"{found.feature_distance:.0%}")]
    if found.below is not None:
        facts.append(("Real images below", f"{found.below:.0%}"))
    return tuple(facts)
