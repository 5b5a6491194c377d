"""The surface that every result has: table, figure, to_dict, repr, and what a notebook shows."""

from __future__ import annotations

import builtins
import importlib
import json
import pkgutil
import re
import sys
import warnings
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from result_table import ADAPTERS, HOSTILE, RESULTS, explanation, explanation_of_vectors, images, patches

import absence_plugins
from absence_plugins import Explanation
from absence_plugins.core.results import Result

LARGEST = 300_000  # characters of what a notebook keeps per result
VOID = {"img", "br", "hr"}


class Reader(HTMLParser):
    """All tags, whether they are closed in order, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def read(shown: Any) -> Reader:
    page = shown._repr_html_()
    assert len(page) < LARGEST
    reader = Reader(page)
    assert not reader.open
    assert not {"script", "style", "link", "iframe"} & set(reader.tags)
    assert set(reader.attributes) <= {"style", "src", "alt"}
    return reader


made = lru_cache(lambda name: RESULTS[name]())


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_has_the_same_surface(name: str) -> None:
    result = made(name)
    assert type(result).__name__ == name.split(" of ")[0]
    table = result.table()
    assert table.strip()
    assert "\n\n\n" not in table
    json.loads(json.dumps(result.to_dict()))
    text = repr(result)
    assert type(result).__name__ in text
    assert len(text) < 3000
    assert "tensor(" not in text
    assert "array(" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = read(result)
    assert "img" in reader.tags, reader.text
    assert {"table", "pre"} & set(reader.tags)
    assert set(re.findall(r"[A-Za-z]{4,}", table)) <= set(re.findall(r"[A-Za-z]{4,}", reader.text + repr(result)))


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_drawn_into_given_axes(name: str) -> None:
    result, holder = made(name), Figure()
    left, right = holder.subplots(1, 2)
    assert result.figure(ax=left) is holder
    assert left.has_data()
    assert not right.has_data()
    assert not right.images
    with pytest.raises(TypeError, match="ax is a str"):
        result.figure(ax="here")


@pytest.mark.slow
def test_every_class_of_results_is_in_the_table() -> None:
    for module in pkgutil.walk_packages(absence_plugins.__path__, "absence_plugins."):
        if ".experiments" not in module.name and not module.name.endswith("__main__") and ".quantus" not in module.name:
            importlib.import_module(module.name)

    def below(kind: type) -> set[type]:
        return {kind} | {one for child in kind.__subclasses__() for one in below(child)}

    own = {one.__name__ for one in below(Result) - {Result} if one.__module__.startswith("absence_plugins.")}
    assert own == {name.split(" of ")[0] for name in RESULTS}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_shows_what_it_is_asked(name: str) -> None:
    adapter = ADAPTERS[name]()
    assert type(adapter).__name__ in repr(adapter)
    assert " at 0x" not in repr(adapter)
    text = read(adapter).text
    assert "holds" in text
    assert " at 0x" not in text
    assert len(text) < 3000


def test_what_an_adapter_says_follows_its_options() -> None:
    from absence_plugins.captum import AbsenceSaliency
    from absence_plugins.zennit import AbsenceGradient

    net = torch.nn.Linear(2, 2)
    said = {word: read(AbsenceSaliency(net, nontarget=word)).text for word in ("runner_up", "margin", None, 1)}
    assert "highest output but the target" in said["runner_up"]
    assert "speaks for its runner-up" in said["margin"]
    assert "non-target" not in said[None]
    assert "logit 1" in said[1]
    assert "a tensor (1, 2)" in read(AbsenceGradient(net, reference=torch.zeros(1, 2))).text


def test_names_are_text_and_never_markup() -> None:
    assert HOSTILE.split(">")[0] in read(explanation_of_vectors()).text  # and no tag of it: `read` looks


def test_without_matplotlib_there_is_still_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    result, own = explanation(), builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return own(name, *rest, **named)

    for name in [one for one in sys.modules if one.startswith(("matplotlib", "absence_plugins.report"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    reader = read(result)
    assert "table" in reader.tags
    assert "img" not in reader.tags
    assert 'pip install "absence-plugins[report]"' in reader.text


def test_loaded_patches_show_a_table_and_why_there_is_no_picture(tmp_path: Path) -> None:
    loaded = type(patches()).load(patches().save(tmp_path))
    reader = read(loaded)
    assert "pass the data set that was scanned" in reader.text
    assert loaded.figure(dataset=images()).axes


# ---------------------------------------------------------------------------------------- explanations on disk


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_saved_explanation_is_read_as_it_was(tmp_path: Path) -> None:
    found = explanation()
    folder = found.save(tmp_path / "new" / "folder", names={1: "cup"})
    assert sorted(path.name for path in folder.iterdir()) == [
        "explanation.json", "explanation.safetensors", "sample-0.png", "sample-1.png",
    ]  # fmt: skip
    loaded = Explanation.load(folder)
    for name, value in vars(found).items():
        if name != "explained":
            assert same(value, getattr(loaded, name)), name
    assert loaded.words({1: "cup"}) == found.words({1: "cup"})
    assert loaded.legend(1, {1: "cup"}) == found.legend(1, {1: "cup"})
    assert loaded.table() == found.table()
    again = Explanation.load(loaded.save(tmp_path / "again"))
    assert again.words() == found.words()
    with pytest.raises(ValueError, match="explain the input again"):
        loaded.explained.values(torch.ones(1, 3))


def test_tuples_and_none_come_back(tmp_path: Path) -> None:
    parts, one = (torch.ones(1, 2), torch.zeros(1, 3)), torch.ones(1)
    found = Explanation(parts, parts, parts, "nontarget", None, None, one, None, None, None)
    loaded = Explanation.load(found.save(tmp_path))
    assert isinstance(loaded.attribution, tuple)
    assert same(loaded.attribution, parts)
    assert loaded.explained is None
    assert loaded.per_reference is None
    assert loaded.figure(part=1).axes
    with pytest.raises(ValueError, match="part=2 does not exist; there are 2 maps"):
        loaded.figure(part=2)


def test_saving_again_leaves_no_old_figures(tmp_path: Path) -> None:
    explanation().save(tmp_path)
    explanation_of_vectors().save(tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["sample-0.png"]
    assert Explanation.load(tmp_path).words() == [HOSTILE]


def test_folders_that_hold_no_explanation_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("name a folder that `Explanation.save` wrote")):
        Explanation.load(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is an existing file; name a folder"):
        explanation().save(tmp_path / "file")
    folder = explanation_of_vectors().save(tmp_path / "found")
    whole = (folder / "explanation.json").read_text()
    (folder / "explanation.json").write_text(whole[:20])
    with pytest.raises(ValueError, match="is damaged"):
        Explanation.load(folder)
    (folder / "explanation.json").write_text(whole.replace("explanation/2", "explanation/9"))
    with pytest.raises(ValueError, match="explanation/9"):
        Explanation.load(folder)


def test_a_figure_says_which_sample_and_what_its_colors_mean() -> None:
    found = explanation()
    figure = found.figure(sample=1, image=images()[:2], names={1: "cup"})
    words = " ".join(text.get_text() for text in figure.texts)
    assert "cup" in words
    assert "down" in words
    with pytest.raises(ValueError, match="sample=2 does not exist; there are 2, from 0"):
        found.figure(sample=2)
