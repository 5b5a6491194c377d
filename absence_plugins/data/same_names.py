"""Names that are the same for a reader though their letters differ: composed or not, in another case."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from absence_plugins.core.names import normal_name
from absence_plugins.core.nearest import describe_nearest


def normalize_name(name: str) -> str:
    r"""A name for comparison across systems: as :func:`~absence_plugins.core.names.normal_name` (composed letters, NFC,
    and spelled), without case and blanks around it.

    >>> normalize_name(" Lo\u0308we") == normalize_name("LÖWE")
    True
    """
    return unicodedata.normalize("NFC", normal_name(name.strip()).casefold())


def match_names(wanted: Sequence[str], given: Iterable[str]) -> dict[str, str]:
    r"""Which of the ``given`` names each of the ``wanted`` ones is: equal, else equal but for composition (NFC), else
    for case and blanks around it; names without a partner are left out.

    Raises:
        ValueError: a name that could be two others.

    >>> match_names(["Löwe", "cat"], ["Lo\u0308we", "CAT", "dog"]) == {"Löwe": "Lo\u0308we", "cat": "CAT"}
    True
    """
    given = list(given)
    exact = set(given)
    alike: dict[str, list[str]] = {}
    for name in given:
        alike.setdefault(normalize_name(name), []).append(name)
    found: dict[str, str] = {}
    for name in wanted:
        others = alike.get(normalize_name(name), [])
        if name in exact:
            found[name] = name
        elif len(others) > 1:
            raise ValueError(f"{name!r} could be {' or '.join(map(repr, others))}; write it as it stands there")
        elif others:
            found[name] = others[0]
    return found


def unify_names(pairs: Iterable[tuple[str, str]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs in which names that differ in case or composition only are one: that of ``names``, else the first one.

    Raises:
        ValueError: a name that could be two of ``names``.

    >>> unify_names([("CAT", "pet"), ("pet", "animal"), ("Pet", "Animal")], ["cat"])
    [('cat', 'pet'), ('pet', 'animal')]
    """
    spelled: dict[str, str] = {}
    first: dict[str, str] = {}

    def one(name: str) -> str:
        if name not in spelled:
            alike = first.setdefault(normalize_name(name), name)
            spelled[name] = match_names([name], names).get(name, alike)
        return spelled[name]

    return list(dict.fromkeys((one(child), one(parent)) for child, parent in pairs))


def describe_missing(name: str, known: Iterable[str]) -> str:
    """The nearest names of a table, as the end of a message."""
    return f"the nearest there are: {describe_nearest(name, known)}"
