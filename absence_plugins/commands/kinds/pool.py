"""The samples that others are compared with: their classes, and which of them one sample may be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.commands.class_names import find_named
from absence_plugins.commands.kinds.models import KindModel
from absence_plugins.commands.predictions import class_of
from absence_plugins.core.names import read_number, spell_name
from absence_plugins.data.folders import list_names

ANY = "any"  # of --contrast: references of every class
SHOWN = 3  # references in a sentence


@dataclass(frozen=True, eq=False)
class Pool:
    """References and their classes.

    Attributes:
        names: as "row 5 of train.csv".
        labels: the class of each, by its label, or by the model where it has none [R].
        predicted: the class that the model itself gives each [R].
        is_named: whether the class is by the label [R].
        source: where they come from.
        is_own: whether these are the other samples of the file that is explained.
        notes: how the labels were read.
    """

    names: tuple[str, ...]
    labels: Tensor
    predicted: Tensor
    is_named: Tensor
    source: str
    is_own: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def choose(
        self, target: int, contrast: int | str | None, runner_up: int | None, same: Tensor, name: str
    ) -> tuple[Tensor, int | None, tuple[str, ...]]:
        """The places of the references that one sample may be compared with, their class, and what was left out.

        They are of the contrast class, by default of the runner-up; where it has none, of every class but the target.
        Those that the model itself gives the target's class are left out, as are copies of the sample.

        Args:
            target: the class of the explained output.
            contrast: a class, "any" for all references, or None: the runner-up.
            runner_up: the sample's second class; None: every class but the target.
            same: whether a reference is a copy of the sample [R].
            name: of the target, for the notes.

        Raises:
            ValueError: nothing is left.
        """
        notes = []
        wanted = contrast if isinstance(contrast, int) else None if contrast == ANY else runner_up
        is_of = torch.ones(len(self), dtype=torch.bool)
        if contrast != ANY:
            is_of = self.labels != target if wanted is None else self.labels == wanted
            left = ~same & (self.predicted != target)
            others = self.labels != target
            if (
                contrast is None
                and wanted is not None
                and not bool((is_of & left).any())
                and bool((others & left).any())
            ):
                notes.append(f"No reference is of the runner-up, class {wanted}; they are of every other class.")
                wanted, is_of = None, others
        by_model = is_of & (self.predicted == target) & ~same if contrast != ANY else torch.zeros_like(is_of)
        left = is_of & ~by_model & ~same
        for places, why in ((by_model, f"the model itself gives {{}} {name}"), (is_of & same, "{} equals the sample")):
            notes += self._say_left_out(places.nonzero().flatten().tolist(), why)
        if not bool(left.any()):
            of = f"of class {wanted} " if wanted is not None else ""
            reasons = f" ({' '.join(notes).rstrip('.')})" if notes else ""
            raise ValueError(
                f"no reference {of}in {self.source} is left to compare {name} with{reasons}; add others to "
                "--references, or "
                "name a class by --contrast (any: references of every class)"
            )
        return left.nonzero().flatten(), wanted, tuple(notes)

    def _say_left_out(self, places: Sequence[int], why: str) -> list[str]:
        if not places:
            return []
        one = len(places) == 1
        names = list_names([self.names[place] for place in places], SHOWN)
        were, it = ("reference was", "it") if one else ("references were", "them")
        reason = why.format(it) if "gives" in why else "it equals the sample" if one else "they equal the sample"
        return [f"{len(places)} {were} left out, as {reason}: {names}."]


def make_pool(
    loaded: KindModel, outputs: Tensor, names: Sequence[str], labels: Sequence[str] | None, source: str, *, is_own: bool
) -> Pool:
    """The references with their classes.

    Args:
        loaded: the model.
        outputs: of the references [R, K].
        names: of them.
        labels: of them, as text; "" where one has none; None: no labels.
        source: where they come from.
        is_own: whether they are the explained samples themselves.

    Raises:
        ValueError: labels that cannot be told which classes they are.
    """
    predicted = class_of(outputs)
    if labels is None:
        said = f"References: {source}; no labels, so that each counts as the class that the model predicts."
        return Pool(
            tuple(names), predicted, predicted, torch.zeros(len(names), dtype=torch.bool), source, is_own, (said,)
        )
    classes, how = match_labels(labels, predicted.tolist(), loaded.categories, max(2, outputs.shape[1]))
    known = [classes.get(label) for label in labels]
    is_named = torch.tensor([one is not None for one in known])
    found = torch.where(is_named, torch.tensor([one or 0 for one in known]), predicted)
    unknown = sorted({spell_name(label) for label, one in zip(labels, known, strict=True) if one is None and label})
    agree = int((found == predicted)[is_named].sum())
    notes = [f"References: {source}; {how}; the model predicts the label of {agree} of {int(is_named.sum())}."]
    if unknown:
        notes.append(
            f"Labels that are no class of the model, so that these count as what it predicts: {list_names(unknown, 6)}."
        )
    return Pool(tuple(names), found, predicted, is_named, source, is_own, tuple(notes))


def match_labels(
    labels: Sequence[str], predicted: Sequence[int], categories: Sequence[str], count: int
) -> tuple[dict[str, int], str]:
    """Which class of the model every label is, and a sentence's part on how that was told.

    The first that applies: labels are names of the model's classes; all are numbers of outputs, from 0; the classes
    have no names, there are as many labels as outputs, and the model agrees with their alphabetical order on most
    samples.

    Raises:
        ValueError: none of these applies.

    >>> match_labels(["cat", "dog"], [1, 0], ["dog", "cat"], 2)[0]
    {'cat': 1, 'dog': 0}
    >>> match_labels(["1.0", "0.0"], [1, 0], [], 2)
    ({'0.0': 0, '1.0': 1}, 'labels are numbers of classes')
    """
    values = sorted({label for label in labels if label})
    if categories:
        found = {}
        for value in values:
            try:
                found[value] = find_named("label", value, categories)
            except ValueError:
                continue
        if found:
            return found, "labels are names of classes"
    numbers = {value: read_number(value.removesuffix(".0")) for value in values}
    if values and all(number is not None and 0 <= number < count for number in numbers.values()):
        return {
            value: number for value, number in numbers.items() if number is not None
        }, "labels are numbers of classes"
    shown = list_names([spell_name(value) for value in values], 6)
    remedy = "name the outputs in their order by --classes, such as --classes no,yes"
    if categories:
        known = list_names([spell_name(name) for name in categories], 6)
        raise ValueError(f"the labels ({shown}) are none of the model's classes ({known}); correct them, or {remedy}")
    if len(values) != count:
        raise ValueError(
            f"the labels ({shown}) are {len(values)}, and the model has {count} classes without such names; {remedy}"
        )
    order = {value: place for place, value in enumerate(values)}
    pairs = [(order[label], own) for label, own in zip(labels, predicted, strict=True) if label]
    agree = sum(own == other for own, other in pairs)
    if 2 * agree <= len(pairs):
        raise ValueError(
            f"the labels ({shown}) are no names of the model's classes, and it predicts them in alphabetical order "
            f"for {agree} "
            f"of {len(pairs)} only; {remedy}"
        )
    return order, f"labels are counted in alphabetical order, {shown}, as there are as many as outputs"
