"""WordNet's names, glosses and hypernyms: of timm's lists, of wn with a lexicon that the test writes, of a stand-in of NLTK."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from absence_plugins.data.labels import find_parents, find_synsets, name_synsets, synsets
from absence_plugins.methods.invert import expand_hypernyms

WORDS = {
    "n02123045": ("tabby", "a cat with a grey or tawny coat mottled with black", ["n02121808"]),
    "n02121808": ("domestic cat", "any domesticated member of the genus Felis", ["n02121620"]),
    "n02121620": ("cat", "feline mammal", []),
    "n02012849": ("crane", "large long-necked wading bird", []),
    "n03126707": ("crane", "lifts and moves heavy objects", []),
}


class Sense:
    """As NLTK has it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def lemma_names(self) -> list[str]:
        return [WORDS[self.key][0].replace(" ", "_")]

    def definition(self) -> str:
        return WORDS[self.key][1]

    def hypernyms(self) -> list[Sense]:
        return [Sense(key) for key in WORDS[self.key][2]]

    def instance_hypernyms(self) -> list[Sense]:
        return []

    def pos(self) -> str:
        return self.key[0]

    def offset(self) -> int:
        return int(self.key[1:])


@pytest.fixture
def nltk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in of ``nltk.corpus.wordnet``: the package has the data, wn and timm are not there."""

    def find(part: str, offset: int) -> Sense | None:
        key = f"{part}{offset:08d}"
        return Sense(key) if key in WORDS else None

    corpus: Any = ModuleType("nltk.corpus")
    corpus.wordnet = SimpleNamespace(get_version=lambda: "3.0", synset_from_pos_and_offset=find)
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)
    for name in ("wn", "timm", "timm.data"):
        monkeypatch.setitem(sys.modules, name, None)
    return corpus.wordnet  # type: ignore[no-any-return]


def test_names_and_hypernyms(nltk: SimpleNamespace) -> None:
    names = ["n02123045", "n02012849", "n03126707", "n00000001", "car"]
    named, meanings = name_synsets(names)
    assert named == ("tabby", "crane (n02012849)", "crane (n03126707)", "n00000001", "car")
    assert meanings["tabby"] == synsets.Synset("n02123045", *WORDS["n02123045"][:2], ("n02121808",))
    assert list(meanings) == ["tabby", "crane (n02012849)", "crane (n03126707)"]
    assert find_parents(["n02123045", "car"]) == {
        "n02123045": ["n02121808"],
        "n02121808": ["n02121620"],
        "n02121620": [],
    }
    assert list(find_synsets(["n02123045"])) == ["n02123045"]
    labels, found = expand_hypernyms([[1, 0], [0, 1]], ["n02123045", "car"], "wordnet")
    assert (found, labels[:, 2:].tolist()) == (
        ("n02123045", "car", "n02121808", "n02121620"),
        [[True, True], [False, False]],
    )


def test_a_package_without_data_says_what_to_install(nltk: SimpleNamespace) -> None:
    nltk.get_version = lambda: "3.1"  # other offsets
    with pytest.raises(ImportError, match=r"names of synsets need wn or nltk or timm with WordNet 3\.0; pip install"):
        name_synsets(["n02123045"])

    def lacking() -> str:
        raise LookupError("Resource wordnet not found.")

    nltk.get_version = lacking
    with pytest.raises(
        ImportError, match=r"hypernyms of synsets need wn or nltk with WordNet 3\.0: .*wn download omw-en:1\.4"
    ):
        expand_hypernyms([[1], [0]], ["n02123045"], "wordnet")
    assert name_synsets(["car"]) == (("car",), {})  # nothing is asked where nothing need be known
    with pytest.raises(ValueError, match=r"none of the names \(car\) is a synset of WordNet 3\.0"):
        expand_hypernyms([[1], [0]], ["car"], "wordnet")
    with pytest.raises(ValueError, match="source"):
        find_synsets(["car"], "princeton")


@pytest.mark.needs("timm")
def test_timm_knows_names_and_glosses() -> None:
    found = find_synsets(["n02123045", "n00000001"], "timm")
    assert found == {"n02123045": synsets.Synset("n02123045", *WORDS["n02123045"][:2])}
    with pytest.raises(ImportError, match="hypernyms of synsets"):
        find_synsets(["n02123045"], "timm", hypernyms=True)


@pytest.mark.needs("wn")
def test_wn_with_a_lexicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wn

    def spell(key: str) -> str:
        return f"omw-en-{key[1:]}-{key[0]}"

    entries = "".join(
        f'<LexicalEntry id="w{k}"><Lemma writtenForm="{word}" partOfSpeech="n"/><Sense id="s{k}" synset="{spell(key)}"/></LexicalEntry>'
        for k, (key, (word, _, _)) in enumerate(WORDS.items())
    )
    senses = "".join(
        f'<Synset id="{spell(key)}" ili="" partOfSpeech="n"><Definition>{gloss}</Definition>'
        + "".join(f'<SynsetRelation relType="hypernym" target="{spell(parent)}"/>' for parent in parents)
        + "</Synset>"
        for key, (_, gloss, parents) in WORDS.items()
    )
    (tmp_path / "words.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.0.dtd">\n'
        '<LexicalResource xmlns:dc="http://purl.org/dc/elements/1.1/"><Lexicon id="omw-en" label="words" language="en" '
        f'email="a@b" license="x" version="1.4">{entries}{senses}</Lexicon></LexicalResource>\n'
    )
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(wn.config, "data_directory", tmp_path / "data")
    with pytest.raises(ImportError, match="names of synsets need wn with WordNet"):
        find_synsets(["n02123045"], "wn")
    wn.add(tmp_path / "words.xml", progress_handler=None)
    found = find_synsets(["n02123045", "n00000001"], "wn", hypernyms=True)
    assert found == {key: synsets.Synset(key, *WORDS[key][:2], tuple(WORDS[key][2])) for key in list(WORDS)[:3]}
