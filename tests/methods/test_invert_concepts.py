"""Labels from folders, attribute tables and hypernyms; the strokes of the digits."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.utils import save_image

from absence_plugins.core import AbsenceWarning
from absence_plugins.data.digit_strokes import STROKES, stroke_concepts
from absence_plugins.methods.invert import Formula, concepts_from_folder, expand_hypernyms


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, files in {
        "zebra": ["b.png", "a.JPG"],
        "cat": ["1.png", "sub/2.png", "10.png"],
        "Dog": ["x.webp"],
    }.items():
        for file in files:
            path = tmp_path / "images" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    (tmp_path / "images" / "cat" / "notes.txt").write_text("no image")
    save_image(torch.rand(3, 4, 4), tmp_path / "images" / "Dog" / "y.png")
    return tmp_path


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_is_read_as_image_folder_reads_it(folder: Path) -> None:
    found = concepts_from_folder(folder / "images")
    host = ImageFolder(str(folder / "images"))
    assert [str(file) for file in found.files] == [path for path, _ in host.samples]
    assert list(found.names) == host.classes == ["Dog", "cat", "zebra"]
    assert found.concepts.int().argmax(1).tolist() == host.targets
    assert found.concepts.dtype == torch.bool
    assert bool((found.concepts.sum(1) == 1).all())
    assert repr(found) == "FolderConcepts(7 images, 3 concepts)"
    assert found.to_dict()["names"] == ["Dog", "cat", "zebra"]


def test_attributes_of_classes_become_concepts(folder: Path) -> None:
    text = '\ufeffclass,"striped, loud",furry\nzebra,1,1\ncat, 0 ,1\nDog,0,1\nhorse,0,1\n\n'
    found = concepts_from_folder(folder / "images", table(folder, text))
    assert found.names == ("Dog", "cat", "zebra", "striped, loud", "furry")
    striped = Formula("striped, loud").evaluate(found.concepts, found.names)
    assert torch.equal(striped, found.concepts[:, 2])
    assert found.varying().names == ("Dog", "cat", "zebra", "striped, loud")  # all are furry
    assert found.varying().concepts.shape == (7, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,furry\nzebra,1\ncat,1\n", "lacks the class 'Dog'"),
        ("class,furry\nzebra,maybe\n", "line 2: furry of 'zebra' is 'maybe'; write 0 or 1"),
        ("class,furry\nzebra,1\nzebra,0\n", "line 3: class 'zebra' comes a second time"),
        ("class,furry\nzebra,1,0\n", "line 2: 3 cells under a header of 2"),
        ("class,furry,furry\nzebra,1,0\n", "'furry' is empty, repeated or a class's name"),
        ("class,cat\nzebra,1\n", "'cat' is empty, repeated or a class's name"),
        ("class\nzebra\n", "there is no attribute"),
        ("class,furry\n", "no lines behind its header"),
    ],
)
def test_a_bad_table_is_shown_its_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        concepts_from_folder(folder / "images", table(folder, text))


def test_a_bad_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist"):
        concepts_from_folder(folder / "nowhere")
    with pytest.raises(ValueError, match="has no subfolders"):
        concepts_from_folder(folder / "images" / "Dog")
    (folder / "images" / "empty").mkdir()  # no class, as in every command
    with pytest.warns(AbsenceWarning, match="1 folder of .*images holds no images and is no class: empty"):
        assert concepts_from_folder(folder / "images").names == ("Dog", "cat", "zebra")
    (folder / "images" / "empty").rmdir()
    with pytest.raises(ValueError, match=r"nowhere\.csv does not exist"):
        concepts_from_folder(folder / "images", folder / "nowhere.csv")


LABELS = torch.eye(4, dtype=torch.bool)
NAMES = ["poodle", "cat", "car", "dog"]
PAIRS = {"poodle": ["dog"], "dog": ["pet", "canine"], "cat": "pet", "canine": ["animal"], "pet": ["animal"],
         "animal": ["entity"], "car": ["vehicle"], "vehicle": ["entity"], "ship": ["vehicle"]}  # fmt: skip


class Graph:
    """As much of a NetworkX DiGraph as is read."""

    def edges(self) -> list[tuple[str, str]]:
        return [(child, p) for child, own in PAIRS.items() for p in ([own] if isinstance(own, str) else own)]


def test_parents_hold_where_one_of_their_children_does(tmp_path: Path) -> None:
    lines = "".join(f"{child},{parent}\n" for child, parent in Graph().edges())
    (tmp_path / "parents.csv").write_text("child,parent\n" + lines)
    for parents in (PAIRS, Graph(), tmp_path / "parents.csv", str(tmp_path / "parents.csv")):
        labels, names = expand_hypernyms(LABELS, NAMES, parents)
        assert names == ("poodle", "cat", "car", "dog", "pet", "canine", "animal", "vehicle")  # entity holds everywhere
        rows = dict(zip(names, labels.T.int().tolist(), strict=True))
        assert rows["dog"] == [1, 0, 0, 1]  # a poodle is a dog
        assert rows["pet"] == rows["animal"] == [1, 1, 0, 1]
        assert rows["canine"] == [1, 0, 0, 1]
        assert rows["vehicle"] == [0, 0, 1, 0]
        assert rows["poodle"] == [1, 0, 0, 0]
    assert int(LABELS.sum()) == 4  # the input is as before


def test_a_table_of_parents_without_a_header_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "parents.csv"
    eye = torch.eye(3, dtype=torch.bool)
    for text in (
        "cat,pet\ntruck,vehicle\ncar,vehicle\n",
        "child;parent\r\nCAT;pet\r\ntruck;Vehicle\r\ncar;vehicle\r\n",
    ):
        path.write_text(text)
        labels, names = expand_hypernyms(eye, ["cat", "truck", "car"], path)
        assert [name.casefold() for name in names] == ["cat", "truck", "car", "pet", "vehicle"]
        assert labels[:, 3:].int().tolist() == [[1, 0], [0, 1], [0, 1]]
    path = path.with_suffix(".json")
    path.write_text('{"cat": ["pet", "feline"], "truck": "vehicle"}')
    assert expand_hypernyms(eye, ["cat", "truck", "car"], path)[1][3:] == ("pet", "feline", "vehicle")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "mac_roman", "cp850"])
def test_a_table_and_folders_of_different_systems_fit(tmp_path: Path, encoding: str) -> None:
    for name in ("cat", "Lo\u0308we"):  # composed from two characters, as some systems store names
        (tmp_path / "f" / name).mkdir(parents=True)
        save_image(torch.rand(3, 4, 4), tmp_path / "f" / name / "1.png")
    path = tmp_path / "a.csv"
    path.write_bytes("class,big\nCat,no\nLöwe,yes\n".encode(encoding))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = concepts_from_folder(tmp_path / "f", path)
    assert found.names[2] == "big"
    assert found.concepts[:, 2].tolist() == [name != "cat" for name in found.names[:2]]
    assert ["Löwe" in str(one.message) for one in said] == [True] * (encoding != "utf-16")


def test_networkx_graphs_are_taken() -> None:
    networkx = pytest.importorskip("networkx")
    assert expand_hypernyms(LABELS, NAMES, networkx.DiGraph(Graph().edges()))[1][4:] == (
        "pet",
        "canine",
        "animal",
        "vehicle",
    )


def test_bad_parents_are_refused(tmp_path: Path) -> None:
    for cyclic in ({"cat": "pet", "pet": "cat"}, {"cat": "pet", "pet": "animal", "animal": "pet"}):
        with pytest.raises(ValueError, match=r"has a cycle: .*pet.*remove one"):
            expand_hypernyms(LABELS, NAMES, cyclic)
    assert expand_hypernyms(LABELS, NAMES, {"ship": "boat", "boat": "ship"})[1] == tuple(NAMES)  # of no concern
    path = tmp_path / "parents.csv"
    path.write_text("child,parent\ncat\n")
    with pytest.raises(ValueError, match="line 2: 'cat' must read child,parent"):
        expand_hypernyms(LABELS, NAMES, path)
    with pytest.raises(TypeError, match="a mapping, a CSV file or a graph with edges, got list"):
        expand_hypernyms(LABELS, NAMES, [("cat", "pet")])
    with pytest.raises(ValueError, match="must be 0 or 1"):
        expand_hypernyms([[2, 0, 0, 1]], NAMES, {})
    with pytest.raises(ValueError, match="4 concepts"):
        expand_hypernyms(LABELS, NAMES[:2], {})


def test_the_strokes_of_the_digits() -> None:
    concepts, names = stroke_concepts(torch.arange(10))
    assert concepts.shape == (10, 10 + len(STROKES))
    assert torch.equal(concepts[:, :10], torch.eye(10, dtype=torch.bool))
    rows = dict(zip(names, concepts.T, strict=True))
    assert rows["closed loop"].nonzero()[:, 0].tolist() == [0, 6, 8, 9]
    assert bool((rows["closed loop"] | ~rows["loop on top"]).all())  # a loop on top is a loop
    assert len({tuple(column.tolist()) for column in concepts.T}) == len(names)  # no stroke is another's spelling
    for wrong, message in (
        ([3, 10], "label 10 is no digit"),
        ([-1], "label -1"),
        ([0.5], "whole numbers"),
        ([[1]], "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            stroke_concepts(wrong)


@pytest.mark.parametrize(
    ("table", "said", "values"),
    [
        ("class,furry,big\ncat,1,-1\ndog,1,1\ncar,-1,1\n", "absent, as no cell is 0", [[0, 1], [1, 0], [1, 1]]),
        ("class,furry,big\ncat,1,-1\ndog,1,0\ncar,-1,1\n", "unknown, as other cells are 0", [[-1, 1], [1, -1], [1, 0]]),
        ("class,furry,big\ncat,1,0\ndog,1,0\ncar,0,1\n", "", [[0, 1], [1, 0], [1, 0]]),
    ],
)
def test_minus_one_is_absent_where_it_stands_for_0_everywhere(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, table: str, said: str, values: list[list[int]]
) -> None:
    for name in ("cat", "dog", "car"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").touch()
    (tmp_path / "a.csv").write_text(table)
    found = concepts_from_folder(tmp_path / "images", tmp_path / "a.csv")  # classes: car, cat, dog
    assert found.concepts[:, 3:].double().nan_to_num(-1).int().tolist() == values
    assert [f"-1 was read as {said}" in str(one.message) for one in recwarn] == [True] * bool(said)
    if "absent" in said:
        assert found.varying().names == ("car", "cat", "dog", "furry", "big")
