"""``absence-plugins label --labels``: files of every kind name the units; what matched is said, what does not fit is refused."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands import label, label_page, label_samples
from absence_plugins.commands.label_samples import LabelFile, file_samples, folder_samples
from absence_plugins.commands.models import load_model
from absence_plugins.core import AbsenceWarning
from absence_plugins.data import load_digits
from absence_plugins.data.labels import Synset, recognize_labels, synsets
from absence_plugins.methods.invert import ConceptScores

COUNT = 12
LOOP = [n % 2 for n in range(COUNT)]  # of the images; and of the second concept, blank in two images
DARK: list[int | None] = [int(n < 6) if n not in (3, 8) else None for n in range(COUNT)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/a/0.png, photos/a/1.png, ...: 12 digits, 8 and 1 by turns."""
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for n in range(COUNT):
        image = digits.train_images[digits.train_labels == (8 if LOOP[n] else 1)][n, 0]
        path = tmp_path / "photos" / "a" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).numpy().astype(np.uint8)).save(path)
    return tmp_path


def cell(value: int | None) -> str:
    return "" if value is None else str(value)


def table(folder: Path) -> Path:
    lines = [f"photos/a/{n}.png,{LOOP[n]},{cell(DARK[n])}" for n in range(COUNT)]
    return write(folder / "labels.csv", "\n".join(["Path,loop,dark", *lines, "photos/a/99.png,1,1"]))


def chexpert(folder: Path) -> Path:
    lines = [f"photos/a/{n}.png,Male,{LOOP[n]}.0,{'-1.0' if DARK[n] is None else cell(DARK[n])}" for n in range(COUNT)]
    return write(folder / "train.csv", "\n".join(["Path,Sex,loop,dark", *lines]))


def celeba(folder: Path) -> Path:
    lines = [f"{n}.png {2 * LOOP[n] - 1:2d} {1 if n < 6 else -1}" for n in range(COUNT)]
    return write(folder / "list_attr_celeba.txt", "\n".join([str(COUNT), "loop dark", *lines]) + "\n")


def cub(folder: Path) -> Path:
    root = folder / "CUB"
    write(root / "images.txt", "\n".join(f"{n + 1} a/{n}.png" for n in range(COUNT)))
    write(root / "attributes" / "attributes.txt", "1 loop\n2 dark")
    lines = [
        f"{n + 1} 1 {LOOP[n]} 4 1.0\n{n + 1} 2 {DARK[n] or 0} {1 if DARK[n] is None else 4} 1.0" for n in range(COUNT)
    ]
    write(root / "attributes" / "image_attribute_labels.txt", "\n".join(lines))
    return root


def coco(folder: Path, is_lvis: bool = False) -> Path:
    images = [{"id": n, "file_name": f"a/{n}.png"} for n in range(COUNT)]
    if is_lvis:
        images = [
            one | {"neg_category_ids": [1] * (not LOOP[n]) + [2] * (DARK[n] == 0)} for n, one in enumerate(images)
        ]
    found = [{"image_id": n, "category_id": c} for n in range(COUNT) for c, own in ((1, LOOP), (2, DARK)) if own[n]]
    categories = [{"id": 1, "name": "loop"}, {"id": 2, "name": "dark"}]
    data = {"info": {}, "images": images, "annotations": found, "categories": categories}
    return write(folder / "instances.json", json.dumps(data))


def lvis(folder: Path) -> Path:
    return coco(folder, True)


def openimages(folder: Path) -> Path:
    lines = [
        f"{n},verification,/m/{c},{own[n]}"
        for n in range(COUNT)
        for c, own in ((1, LOOP), (2, DARK))
        if own[n] is not None
    ]
    write(folder / "oidv7-class-descriptions.csv", "LabelName,DisplayName\n/m/1,loop\n/m/2,dark\n")
    return write(folder / "val.csv", "\n".join(["ImageID,Source,LabelName,Confidence", *lines, "77,crowd,/m/9,1"]))


def broden(folder: Path) -> Path:
    root = folder / "broden"
    lines = ["image,split,ih,iw,sh,sw,object,texture"]
    for n in range(COUNT):
        mask = np.full((2, 2, 3), 0, np.uint8)
        mask[0, 0, :2] = (1, 1) if LOOP[n] else (2, 1)  # 257 and 258
        path = root / "images" / f"{n}_object.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
        texture = "" if DARK[n] is None else "7" if DARK[n] else "8"
        lines.append(f"photos/a/{n}.png,train,8,8,2,2,{n}_object.png,{texture}")
    write(root / "index.csv", "\n".join(lines) + "\n")
    labels = "257,loop,object(1)\n258,bar,object(1)\n7,dark,texture(1)\n8,light,texture(1)\n"
    write(root / "label.csv", "number,name,category\n" + labels)
    return root


def invert(folder: Path) -> Path:
    order = sorted(range(COUNT), key=str)  # of the folder: 0, 1, 10, 11, 2, ...
    torch.save(torch.tensor([[LOOP[n], int(n < 6)] for n in order]), folder / "labels.pt")
    entries = {"0": {"offset": "n00000001", "name": "loop", "hypernyms": ["n00000002"]}, "1": {"name": "dark"}}
    write(folder / "labels.json", json.dumps(entries))
    return folder / "labels.pt"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


SOURCES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "table": (table, "table", "a table of images: labels of 12 of 12 image files (without a file: 1, such as photos/a/99.png); 2 concepts, 2 of 24 labels unknown"),
    "chexpert": (chexpert, "table", "labels of 12 of 12 image files; 2 concepts, 2 of 24"),
    "celeba": (celeba, "celeba", "CelebA's list of attributes: labels of 12 of 12"),
    "cub": (cub, "cub", "CUB's attributes: labels of 12 of 12 image files; 2 concepts, 2 of 24"),
    "coco": (coco, "coco", "annotations of COCO: labels of 12 of 12 image files; 2 concepts, 0 of 24"),
    "lvis": (lvis, "lvis", "annotations of LVIS: labels of 12 of 12 image files; 2 concepts, 2 of 24"),
    "openimages": (openimages, "openimages", "Open Images' verified labels: labels of 12 of 12 image files; 2 concepts, 2 of 24"),
    "broden": (broden, "broden", "Broden's masks: labels of 12 of 12 image files; 4 concepts, 4 of 48"),
    "invert": (invert, "invert", "INVERT's labels: labels of 12 of 12 image files; 2 concepts, 0 of 24"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_is_told_and_read(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, kind, said = SOURCES[name]
    path = make(folder)
    assert recognize_labels(path) == kind
    for given in ("auto", kind):
        samples = file_samples(Path("photos"), load_model("digits"), LabelFile(path, given))
        assert said in capsys.readouterr().err
        assert said in samples.source
        order = sorted(range(COUNT), key=str)
        truth = samples.concepts.double().nan_to_num(0.5).T.tolist()
        columns = dict(zip(samples.names, truth, strict=True))
        assert columns["loop"] == [LOOP[n] for n in order]
        unknown = name not in ("celeba", "coco", "invert")
        dark = [(0.5 if unknown else float(n < 6 and name != "coco")) if DARK[n] is None else DARK[n] for n in order]
        assert columns["dark"] == dark


def run(*arguments: str) -> tuple[int, str]:
    options = [
        "--model",
        "digits",
        "--layer",
        "linear2",
        "--images",
        "photos",
        "--holdout",
        "0",
        "--quiet",
        "--out",
        "page",
    ]
    result = CliRunner().invoke(app, ["label", *options, *arguments])
    return result.exit_code, result.output


def test_the_command_names_units_by_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "photos" / "a" / "3.png").unlink()
    path = write(folder / "labels.csv", table(folder).read_text().replace("photos/a/5.png", "photos/a/55.png"))
    write(folder / "parents.csv", "child,parent\nloop,n02123045\ndark,shade\nloop,shade\n")
    monkeypatch.setattr(label, "SHOWN", 1)  # thresholds
    monkeypatch.setattr(label_page, "SHOWN", 1)
    monkeypatch.setattr(label_page, "OTHERS", 1)
    tabby = Synset("n02123045", "tabby", "a cat, with a coat")
    monkeypatch.setattr(
        label_samples, "name_synsets", lambda names: (("loop", "dark", "tabby", "shade"), {"tabby": tabby})
    )
    code, output = run("--labels", str(path), "--hypernyms", "parents.csv")
    assert code == 0, output
    said = f"{path}, read as a table of images: labels of 10 of 11 image files (without a file: 3, such as"
    assert said in output.replace("\n", "")
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "10 images of photos, 4 concepts" in page
    assert "labels of 10 of 11 image files" in page
    lines = (folder / "page" / "labels.csv").read_text().splitlines()
    assert any("loop" in line for line in lines[1:])
    assert not any("n02123045" in line for line in lines)
    concepts = (folder / "page" / "concepts.csv").read_text().splitlines()
    assert concepts == ["concept,synset,gloss", 'tabby,n02123045,"a cat, with a coat"']


def test_scores_get_their_thresholds_on_the_searched_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label, "SHOWN", 1)  # thresholds
    monkeypatch.setattr(label_page, "SHOWN", 1)
    monkeypatch.setattr(label_page, "OTHERS", 1)
    lines = [f"{n}.png,x,{0.2 + 0.1 * LOOP[n] + 0.001 * n:.3f},{0.3 if n < 6 else -0.1},0.5" for n in range(COUNT)]
    lines[4] = "4.png,x,,0.3,0.5"
    write(folder / "scores.csv", "\n".join(["file,note,loop,dark,same", *lines]))
    with pytest.warns(AbsenceWarning, match="1 column holds other cells than numbers and was left out: note"):
        samples = file_samples(Path("photos"), load_model("digits"), LabelFile.of(Path("scores.csv"), "auto", "auto"))
    assert isinstance(samples.concepts, ConceptScores)
    assert (samples.names, len(samples)) == (("loop", "dark"), COUNT)
    code, output = run("--labels", "scores.csv", "--labels-threshold", "auto")
    assert code == 0, output
    thresholds = json.loads((folder / "page" / "labels.json").read_text())["settings"]["thresholds"]
    assert 0.211 < thresholds["loop"] < 0.301
    assert -0.1 < thresholds["dark"] < 0.3
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert f"Present above, as chosen on the searched images: loop {thresholds['loop']:.3g} and 1 more" in page
    code, output = run("--labels", "scores.csv")
    assert code != 0
    assert "--labels-threshold 0.5, or" in " ".join(output.split())
    write(
        folder / "p.csv",
        "\n".join(["file,loop,dark", *(f"{n}.png,0.{2 + 6 * LOOP[n]},{int(n < 6)}" for n in range(COUNT))]),
    )
    samples = file_samples(Path("photos"), load_model("digits"), LabelFile.of(Path("p.csv"), "auto", "0.5"))
    assert isinstance(samples.concepts, torch.Tensor)
    assert samples.concepts[:, 0].tolist() == [bool(LOOP[n]) for n in sorted(range(COUNT), key=str)]


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (table, ["--labels", "lables.csv"], r"labels file lables\.csv does not exist; there is labels\.csv"),
        (table, ["--labels", "labels.csv", "--labels-format", "csv"], "--labels-format 'csv' must be one of cub, coco, lvis and 6 more"),
        (table, ["--labels", "labels.csv", "--attributes", "labels.csv"], "--labels describe images and --attributes their"),
        (table, ["--labels-format", "coco"], "say how --labels are read; name that file, too"),
        (table, ["--labels", "labels.csv", "--hypernyms", "nowhere.csv"], r"hypernyms file nowhere\.csv does not exist"),
        (table, ["--labels", "labels.csv", "--labels-format", "celeba"], "it looks like a table of images .--labels-format table"),
        (table, ["--labels", "photos"], "the folder photos is no source of labels; folders are those of Broden"),
        (coco, ["--labels", "instances.json", "--labels-format", "lvis"], "is annotations of COCO, as no images have neg_cat"),
        (table, ["--labels", "labels.csv", "--labels-threshold", "half"], "--labels-threshold 'half' must be"),
        (table, ["--labels", "labels.csv", "--labels-threshold", "2"], "threshold=2.0 must be at least 0 and below 1"),
        (table, ["--labels", "labels.csv", "--labels-minus", "no"], "--labels-minus 'no' must be one of auto, absent"),
        (table, ["--labels", "labels.csv", "--labels-threshold", "auto", "--labels-minus", "absent"], "auto takes -1 for a"),
        (coco, ["--labels", "instances.json", "--labels-minus", "absent"], "is for tables of 1 and -1; instances.json is read as"),
        (table, ["--labels", "labels.csv", "--labels-threshold", "auto", "--hypernyms", "labels.csv"], "--hypernyms need labels"),
        (coco, ["--labels", "instances.json", "--labels-threshold", "0.5"], "a threshold is for tables with probabilities"),
        (invert, ["--labels", "labels.pt"], "11 images for the 12 rows of labels.pt, which are matched by their order"),
        (openimages, ["--labels", "val.csv", "--images", "others"], r"has labels of no image of others, such as x\.png"),
        (broden, ["--labels", "broden", "--images", "others"], r"has labels of no image of others, such as x\.png"),
        (table, ["--labels", "labels.csv", "--images", "others"], r"no file of others, such as x\.png, has labels; they are of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    folder: Path, make: Callable[[Path], Path], arguments: list[str], message: str
) -> None:
    make(folder)
    (folder / "others").mkdir()
    shutil.move(folder / "photos" / "a" / "3.png", folder / "others" / "x.png")
    code, output = run(*arguments)
    assert code != 0
    assert re.search(message, " ".join(output.split())), output


def test_a_flat_folder_is_told_of_labels_and_groups_that_were_asked_for_are_no_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"every class needs its own, or name a file with the labels .* --labels FILE"):
        folder_samples(Path("photos") / "a", load_model("digits"))
    groups = write(folder / "groups.csv", "\n".join(["file,group", *(f"{n}.png,{n // 2}" for n in range(COUNT))]))
    source = LabelFile(table(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        file_samples(Path("photos"), load_model("digits"), source, groups=groups)
    assert f"12 images in 6 groups of {groups}, none of which is split." in capsys.readouterr().err
    shutil.copy(Path("photos") / "a" / "0.png", Path("photos") / "a" / "2.png")
    with pytest.warns(AbsenceWarning, match="1 of 12 images of photos are exact copies"):
        file_samples(Path("photos"), load_model("digits"), source)


def test_synsets_keep_their_keys_without_a_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "labels.csv", table(folder).read_text().replace("dark", "n02123045"))
    source = LabelFile(folder / "labels.csv")
    monkeypatch.setattr(synsets, "SOURCES", {})
    assert file_samples(Path("photos"), load_model("digits"), source).names == ("loop", "n02123045")
    assert "concepts such as n02123045 keep their keys: names of synsets need" in capsys.readouterr().err
    cat = Synset("n02123045", "tabby", "a cat")
    monkeypatch.setattr(synsets, "SOURCES", {"nltk": lambda: {"n02123045": cat}.get})
    samples = file_samples(Path("photos"), load_model("digits"), source)
    assert (samples.names, samples.meanings) == (("loop", "tabby"), {"tabby": cat})


def test_hypernyms_that_fit_nothing_are_said(folder: Path) -> None:
    table(folder)
    write(folder / "parents.csv", "child,parent\ncat,pet\n")
    with pytest.warns(AbsenceWarning, match=r"parents\.csv adds no concept to loop, dark; its children must"):
        samples = file_samples(Path("photos"), load_model("digits"), LabelFile(folder / "labels.csv"), "parents.csv")
    assert samples.names == ("loop", "dark")
    invert(folder)
    samples = file_samples(Path("photos"), load_model("digits"), LabelFile(folder / "labels.pt"), "labels.json")
    assert samples.names[:2] == ("loop", "dark")
    assert len(samples.names) == 3  # what loop is a kind of, in INVERT's own JSON


@pytest.mark.parametrize("typed", ["0.2,0.5", "atuo", "nan"])
def test_a_threshold_is_one_number(typed: str) -> None:
    assert LabelFile.of(Path("a.csv"), "table", "-0.5").threshold == -0.5
    with pytest.raises(ValueError, match=f"--labels-threshold '{typed}' must be one number for all concepts, or auto"):
        LabelFile.of(Path("a.csv"), "table", typed)
