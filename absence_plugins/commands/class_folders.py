"""Which class of a model a folder of images is, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from absence_plugins.commands.class_names import find_named
from absence_plugins.core.names import read_number

BY_NAME, BY_NUMBER, BY_ORDER = "name", "number", "order"
SORTED_AS_COUNTED = 9  # numbers up to here come in the same order by the alphabet
SHOWN = 6


@dataclass(frozen=True)
class ClassFolders:
    """The class of every folder, and how it was read.

    Attributes:
        classes: by the folder's name; None for one that is no class of the model.
        how: "name", "number" (of the output) or "order" (alphabetical); "" where no folder is a class.
        note: what a reader must know of it, behind "folders, ..."; often nothing.
    """

    classes: dict[str, int | None] = field(default_factory=dict)
    how: str = ""
    note: str = ""


def match_folders(
    names: Sequence[str],
    categories: Sequence[str],
    count: int | None = None,
    predicted: Sequence[tuple[str, int]] = (),
) -> ClassFolders:
    """The class of every folder, by its name.

    The first that applies: the folder has the name of a class, in any case; *all* folders are numbers of outputs,
    counted from 0, that the model has; there are as many folders as outputs, and they are counted in alphabetical
    order, as torchvision's ``ImageFolder`` does. Otherwise a folder is no class of the model. Folders 1 to K of a model
    with K outputs are counted in their order if K is below 10, where the alphabet has the same order; from 10 on, as
    the model's
    predictions say: they must agree with one order on half of the images, and twice as often as with the other.

    Args:
        names: of the folders, in the order of ``ImageFolder``.
        categories: the classes' names in the order of the outputs; empty where they are not known.
        count: how many outputs the model has; None if that is not known, and then it has any.
        predicted: of every image its folder's name and the class that the model predicts.

    Raises:
        ValueError: the numbers count from 1, or in alphabetical order, and it cannot be known which.

    >>> match_folders(["cat", "misc"], ["dog", "Cat"]).classes
    {'cat': 1, 'misc': None}
    >>> match_folders(["0", "2"], [], 3).classes, match_folders(["1", "2", "3"], [], 3).classes
    ({'0': 0, '2': 2}, {'1': 0, '2': 1, '3': 2})
    >>> match_folders(["²", "3"], [], 4).classes
    {'²': None, '3': None}
    """
    found: dict[str, int | None] = {}
    for name in names:
        try:
            found[name] = find_named("folder", name, categories)
        except ValueError:
            found[name] = None
    numbers = [number for name in names if (number := read_number(name)) is not None and number >= 0]
    are_numbers = bool(names) and len(numbers) == len(names)
    if names and all(index is not None for index in found.values()):
        differ = are_numbers and numbers != list(found.values())
        return ClassFolders(found, BY_NAME, "by the names of the model's classes, not as numbers of outputs" * differ)
    if are_numbers and (count is None or max(numbers) < count):
        return ClassFolders(dict(zip(names, numbers, strict=True)), BY_NUMBER, _say_numbers(names, numbers, count))
    if are_numbers and min(numbers) >= 1 and max(numbers) == count:
        return _count_from_one(names, numbers, count, predicted)
    if any(index is not None for index in found.values()):
        return ClassFolders(found, BY_NAME)
    if names and len(names) == count:
        note = "counted in alphabetical order as there are as many as outputs"
        return ClassFolders({name: index for index, name in enumerate(names)}, BY_ORDER, note)
    return ClassFolders(found)


def _say_numbers(names: Sequence[str], numbers: Sequence[int], count: int | None) -> str:
    note = f"read as numbers of outputs, from 0{' and not from 1' if min(numbers) == 1 else ''}"
    if len(names) == count and numbers != sorted(numbers):
        note += f" (torchvision's ImageFolder would count them as {', '.join(names[:SHOWN])}, ...)"
    return note


def _count_from_one(
    names: Sequence[str], numbers: Sequence[int], count: int, predicted: Sequence[tuple[str, int]]
) -> ClassFolders:
    if sorted(numbers) == list(range(1, count + 1)) and count <= SORTED_AS_COUNTED:
        classes: dict[str, int | None] = {name: number - 1 for name, number in zip(names, numbers, strict=True)}
        note = (
            f"counted from 1 in alphabetical order, as there is no output {count}: the model's go from 0 to {count - 1}"
        )
        return ClassFolders(classes, BY_ORDER, note)
    said = ""
    if len(names) == count:
        counted: dict[str, int | None] = {name: number - 1 for name, number in zip(names, numbers, strict=True)}
        ordered: dict[str, int | None] = {name: index for index, name in enumerate(names)}
        one, other = (sum(own[name] == index for name, index in predicted) for own in (counted, ordered))
        if predicted:
            said = (
                f"; the model predicts the former for {one:,} and the latter for {other:,} of {len(predicted):,} images"
            )
        for own, how, many, few in ((counted, "from 1", one, other), (ordered, "in alphabetical order", other, one)):
            if many and 2 * many >= len(predicted) and many >= 2 * few:
                other_how = "in alphabetical order" if own is counted else "from 1"
                agree = f"as the model predicts so for {many:,} of {len(predicted):,} images ({few:,} if counted {other_how})"
                return ClassFolders(own, BY_ORDER, f"counted {how}, {agree}")
        why = f"either they are counted from 1, or in alphabetical order ({', '.join(names[:SHOWN])}, ...)"
    else:
        why = f"either they are counted from 1, or there is no output for {count}"
    raise ValueError(
        f"the folders {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''} are numbers from 1 to {count}, "
        f"and the model's outputs go from 0 to {count - 1}: {why}{said}; rename them to the outputs' numbers from 0, or to "
        "the names of the classes"
    )
