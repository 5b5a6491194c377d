"""Classes by number or by name, wherever a class is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from absence_plugins.core.names import read_number
from absence_plugins.core.nearest import find_nearest, plain_name
from absence_plugins.core.targets import count_index


def find_class(option: str, text: str, categories: Sequence[str], count: int | None = None) -> int:
    """The number of a class that is named by its number, or by its name in any case.

    Args:
        option: for messages, as ``--target``.
        text: what was typed.
        categories: the classes' names in the order of the outputs; empty where they are not known.
        count: how many outputs the model has; None if that is not known yet, and then any number is accepted.

    Raises:
        ValueError: there is no such class, with the nearest names; a name that several classes have.

    >>> find_class("--target", "Red_Fox", ["red fox", "grey fox"]), find_class("--target", "-1", [], 2)
    (0, 1)
    >>> find_class("--target", "gray fox", ["red fox", "grey fox"])
    Traceback (most recent call last):
    ValueError: --target 'gray fox' is no class of the model; the nearest names are: grey fox (1), red fox (0)
    """
    number = read_number(text.strip())
    if number is None:
        return find_named(option, text, categories)
    place = (number if number >= 0 else None) if count is None else count_index(number, count)
    if place is None:
        known = "; class indices go from 0"
        if count is not None:
            known = f": the model has {count} outputs, class indices go from 0 to {count - 1}, or from -1 backwards"
        raise ValueError(f"{option} {number} does not exist{known}")
    return place


def find_named(option: str, text: str, categories: Sequence[str]) -> int:
    """The number of the class that has a name, in any case; a number is a name like any other here.

    Args:
        option: for messages.
        text: the name.
        categories: the classes' names in the order of the outputs; empty where they are not known.

    Raises:
        ValueError: there is no such class, with the nearest names; a name that several classes have.

    >>> find_named("folder", "3", ["2", "3", "4"])
    1
    """
    wanted = plain_name(text)
    names = [plain_name(name) for name in categories]
    found = [index for index, name in enumerate(names) if name == wanted]
    # as in "tabby, tabby cat": any of the names of one class
    found = found or [i for i, name in enumerate(categories) if wanted in map(plain_name, name.split(","))]
    if len(found) > 1:
        raise ValueError(f"{option} {text!r} is the name of classes {', '.join(map(str, found))}; pass the number")
    if found:
        return found[0]
    if not categories:
        raise ValueError(f"{option} {text!r}: the model's classes have no names here; pass the number of a class")
    raise ValueError(f"{option} {text!r} is no class of the model; {nearest_names(text, categories)}")


def nearest_names(text: str, categories: Sequence[str]) -> str:
    """The names that are nearest to what was typed, with their numbers, as the end of a message.

    >>> nearest_names("tiger cot", ["tiger", "tiger cat", "lamp"])
    'the nearest names are: tiger cat (1), tiger (0), lamp (2)'
    """
    places: dict[str, int] = {}
    for index, name in enumerate(categories):
        places.setdefault(name, index)
    return f"the nearest names are: {', '.join(f'{name} ({places[name]})' for name in find_nearest(text, places))}"
