"""WordNet's names, glosses and hypernyms of classes that are called by synset, such as ImageNet's n02123045.

A key is a part of speech and an offset in WordNet 3.0. Three packages know them, and none is needed otherwise:

- ``timm`` lists names and glosses of the 21,844 synsets of ImageNet, without hypernyms;
- ``wn`` with the lexicon ``omw-en`` (WordNet 3.0) has everything: ``python -m wn download omw-en:1.4``;
- ``nltk`` with its corpus ``wordnet`` as well: ``python -m nltk.downloader wordnet``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from absence_plugins.core.checks import check_choice
from absence_plugins.data.labels.image_labels import check_distinct

LEXICON = "omw-en"
VERSION = "3.0"
REMEDY = (
    'pip install "absence-plugins[wordnet]" and `python -m wn download omw-en:1.4` (or nltk with `python -m nltk.downloader '
    "wordnet`)"
)


@dataclass(frozen=True)
class Synset:
    """A sense of WordNet.

    Attributes:
        key: part of speech and offset in WordNet 3.0, such as n02123045.
        name: its first word.
        gloss: its definition.
        parents: keys of its hypernyms; () where the package does not know them.

    >>> Synset("n02123045", "tabby", "a cat with a grey or tawny coat mottled with black", ("n02121808",)).name
    'tabby'
    """

    key: str
    name: str
    gloss: str
    parents: tuple[str, ...] = ()


Find = Callable[[str], Synset | None]


def is_synset(name: str) -> bool:
    """Whether a name is the key of a synset.

    >>> is_synset("n02123045"), is_synset("n2"), is_synset("tabby")
    (True, False, False)
    """
    return bool(re.fullmatch(r"[nvasr]\d{8}", name))


def find_synsets(names: Iterable[str], source: str = "auto", *, hypernyms: bool = False) -> dict[str, Synset]:
    """The synsets among names, by their keys; names that are no keys, and keys that are not known, are passed over.

    Args:
        names: of classes.
        source: "timm", "wn" or "nltk"; "auto": the first one that is installed with its data.
        hypernyms: whether all that they are kinds of is wanted as well, over all generations ("timm" has none).

    Raises:
        ImportError: no package with data, with what to install.

    >>> find_synsets(["tabby", "Siamese"])
    {}
    """
    check_choice("source", source, ("auto", *SOURCES))
    keys = list(dict.fromkeys(name for name in names if is_synset(name)))
    found: dict[str, Synset] = {}
    find = _open(source, hypernyms) if keys else None
    while keys and find is not None:
        fresh = {key: one for key in keys if (one := find(key)) is not None}
        found |= fresh
        above = dict.fromkeys(key for one in fresh.values() for key in one.parents if key not in found)
        keys = list(above) if hypernyms else []
    return found


def name_synsets(names: Sequence[str], source: str = "auto") -> tuple[tuple[str, ...], dict[str, Synset]]:
    """Names with words in place of keys (with the key behind, where two are the same), and the synset of each new name.

    Raises ImportError as :func:`find_synsets`.

    >>> name_synsets(["tabby", "Siamese"])
    (('tabby', 'Siamese'), {})
    """
    known = find_synsets(names, source)
    named = check_distinct([known[name].name if name in known else name for name in names], names)
    return named, {new: known[old] for new, old in zip(named, names, strict=True) if old in known}


def find_parents(names: Sequence[str], source: str = "auto") -> dict[str, list[str]]:
    """Child -> parents among synsets, over all generations: for ``expand_hypernyms``.

    Raises:
        ImportError: neither wn nor nltk is installed with data. ValueError: no name is the key of a synset they know.

    >>> find_parents(["tabby"])
    Traceback (most recent call last):
    ValueError: none of the names (tabby) is a synset of WordNet 3.0, such as n02123045; pass a table child,parent
    """
    found = find_synsets(names, source, hypernyms=True)
    if not found:
        raise ValueError(
            f"none of the names ({', '.join(names[:3])}) is a synset of WordNet 3.0, such as n02123045; pass a table "
            "child,parent"
        )
    return {key: list(one.parents) for key, one in found.items()}


def _open(source: str, hypernyms: bool) -> Find:
    """What finds a synset by its key. Raises ImportError where no package can."""
    tried = [name for name in SOURCES if source in ("auto", name) and not (hypernyms and name == "timm")]
    for name in tried:
        try:
            find = SOURCES[name]()
        except ImportError:
            continue
        if find is not None:
            return find
    what, timm = ("hypernyms", "") if hypernyms else ("names", '; pip install "absence-plugins[photos]" or: ')
    raise ImportError(
        f"{what} of synsets need {' or '.join(tried) or 'wn or nltk'} with WordNet 3.0{timm or ': '}{REMEDY}"
    )


def _open_wn() -> Find | None:
    import wn

    try:
        lexicon = wn.Wordnet(LEXICON)
    except wn.Error:
        return None

    def key_of(synset: Any) -> str:
        offset, part = synset.id.removeprefix(f"{LEXICON}-").split("-")
        return f"{part}{offset}"

    def find(key: str) -> Synset | None:
        try:
            one = lexicon.synset(f"{LEXICON}-{key[1:]}-{key[0]}")
        except wn.Error:
            return None
        words = one.lemmas()
        parents = tuple(key_of(parent) for parent in one.hypernyms())
        return Synset(key, str(words[0]) if words else key, one.definition() or "", parents)

    return find


def _open_nltk() -> Find | None:
    from nltk.corpus import wordnet

    try:
        if wordnet.get_version() != VERSION:
            return None
    except (LookupError, OSError):
        return None

    def find(key: str) -> Synset | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NLTK warns of an offset without a synset
            try:
                one = wordnet.synset_from_pos_and_offset(key[0], int(key[1:]))
            except Exception:  # of many types: what stands at another place of the file is no synset
                return None
        if one is None:
            return None
        parents = (*one.hypernyms(), *one.instance_hypernyms())
        name = one.lemma_names()[0].replace("_", " ")
        return Synset(key, name, one.definition(), tuple(f"{own.pos()}{own.offset():08d}" for own in parents))

    return find


def _open_timm() -> Find | None:
    from timm.data import ImageNetInfo

    listed = ImageNetInfo("imagenet-22k")

    def find(key: str) -> Synset | None:
        try:
            words, whole = (listed.label_name_to_description(key, detailed=detailed) for detailed in (False, True))
        except KeyError:
            return None
        return Synset(key, words.split(",")[0].strip(), whole.removeprefix(f"{words}: "))

    return find


SOURCES: dict[str, Callable[[], Find | None]] = {"wn": _open_wn, "nltk": _open_nltk, "timm": _open_timm}
