"""Every command reads the same images of a folder, with the same classes, and says the same of what it leaves out."""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from absence_plugins.commands import label, report
from absence_plugins.commands.directions import Fit, _read_images
from absence_plugins.commands.early_checks import check_images
from absence_plugins.commands.explain import explain_images
from absence_plugins.commands.image_folder import FolderImages, readable
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.commands.references import describe_references, load_references
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import normal_name
from absence_plugins.data.folders import find_images
from absence_plugins.experiments import imagenet
from absence_plugins.experiments.debias.folder import _parts
from absence_plugins.methods.invert import concepts_from_folder
from absence_plugins.report import Row

NFC, NFD = (unicodedata.normalize(form, "Löwe") for form in ("NFC", "NFD"))


class ByBrightness(nn.Module):
    """Class 0 for dark images, class 1 for bright ones."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def loaded(names: tuple[str, ...] = ()) -> LoadedModel:
    return LoadedModel(ByBrightness(), Preprocessing(8, 3, (0.0,) * 3, (1.0,) * 3), names)


def paint(folder: Path, *names: str, value: int = 0) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (8, 8), (value,) * 3)
        picture.putpixel((number, 0), (0, 128, 255))  # no copies of each other
        picture.save(path)
    return folder


# -- the same files and classes, whatever the folder is like ---------------------------------------------------------

FOLDERS = ("cat", "dog", ".hidden", "__MACOSX", NFC, NFD, os.fsdecode(b"caf\xe9"), "²", "cat/deep", "dog/a-b", "dog/a")
FILES = (*"a.png B.GIF c.JPEG d.txt e .f.png Thumbs.db bad.png cut.tif".split(), os.fsdecode(b"h\xff.png"))
AIMS = ("cat", "dog", ".", "cat/deep", "dog/a", "nowhere", "cat/a.png", "dog/B.GIF", "dog/d.txt", "cat/bad.png", NFC)
files_made = st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(FILES)), min_size=1, max_size=14, unique=True)
links_made = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(("link", "z.png", "A")), st.sampled_from(AIMS)),
    max_size=5,
    unique_by=lambda each: each[:2],
)


def build(root: Path, files: list[tuple[str, str]], links: list[tuple[str, str, str]]) -> None:
    for place, name in files:
        path = root / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in ("a.png", "B.GIF", "c.JPEG", ".f.png") or name.startswith("h"):
            kind = {"B.GIF": "GIF", "c.JPEG": "JPEG"}.get(name, "PNG")
            with path.open("wb") as file:
                Image.new("RGB", (8, 8), (hash_of(path),) * 3).save(file, kind)
        else:
            path.write_bytes(b"no picture")
    for place, name, aim in links:
        path = root / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(root / aim, os.path.realpath(path.parent)))


def hash_of(path: Path) -> int:
    return sum(os.fsencode(path.name)) % 256


def plain_walk(root: str) -> dict[str, set[str]]:
    """The real paths of the images of every class, once more and plainly: whatever ends as an image, with what Pillow
    cannot open at last.
    """
    from PIL import UnidentifiedImageError

    ends = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}

    def walk(folder: str, came_through: tuple[str, ...]) -> set[str]:
        found: set[str] = set()
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            real, holder = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
            if name[0] == "." or name in ("__MACOSX", "Thumbs.db"):
                continue
            if os.path.isdir(path):
                above = {holder, *holder.parents, *Path(os.path.realpath(root)).parents, Path(os.path.realpath(root))}
                if real not in above and str(real) not in came_through:
                    found |= walk(path, (*came_through, str(real)))
            elif os.path.isfile(path) and os.path.splitext(name)[1].lower() in ends:
                found.add(str(real))
        return found

    classes: dict[str, set[str]] = {}
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if os.path.isdir(path) and name[0] != "." and name != "__MACOSX":
            classes.setdefault(normal_name(name), set()).update(walk(path, (os.path.realpath(path),)))
    for name, found in list(classes.items()):
        if not found:
            del classes[name]
        for path in list(found):
            try:
                Image.open(path).load()
            except (UnidentifiedImageError, OSError):
                found.remove(path)
    return classes


def by_class(root: Path, files: list[Path], labels: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path, name in zip(files, labels, strict=True):
        assert path.is_relative_to(root)
        own = found.setdefault(name, set())
        assert os.path.realpath(path) not in own, "counted twice"
        own.add(os.path.realpath(path))
    return found


@settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(files_made, links_made)
def test_every_command_reads_what_a_plain_walk_with_pillow_finds(
    files: list[tuple[str, str]], links: list[tuple[str, str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)
        root = Path(folder) / "set"
        build(root, files, links)
        right = plain_walk(str(root))
        read = {name: found for name, found in right.items() if found}
        if not read:
            with pytest.raises(ValueError, match=r"holds no images|none of the"):
                FolderImages(root, loaded().preprocessing)
            return
        concepts = concepts_from_folder(root)
        assert set(concepts.names) == set(right)
        assert concepts.concepts.shape == (len(concepts.files), len(right))
        walked = readable(find_images(root), progress=False)
        named = [walked.found.classes[label] for label in walked.found.labels if label is not None]
        assert by_class(root, list(walked.files), named) == read
        images = FolderImages(root, loaded().preprocessing)
        assert images.files == list(walked.files)
        references = load_references(root, loaded(), k=1)
        assert list(references.files) == images.files
        assert set(references.classes) == set(right)
        drawn = _read_images(root, loaded(), Fit(2), None, progress=False)
        assert list(drawn.files) == images.files
        of_report = report.folder_samples(root, loaded().preprocessing)
        assert of_report.dataset.files == images.files
        if len(read) > 1:
            assert of_report.labels is not None
            assert [walked.found.classes[k] for k in of_report.labels] == named
            of_label = label.folder_samples(root, loaded())
            assert len(of_label) == len(named)
            assert of_label.left_out is not None
            assert list(of_label.left_out.files) == images.files
        if len(right) == 2:
            train, validation, classes, _ = _parts(root, 0, Path(folder) / "out", progress=False)
            pairs = sorted([*train, *validation])
            assert by_class(root, [path for path, _ in pairs], [classes[k] for _, k in pairs]) == read


# -- by hand ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Two classes, and what lies in real folders besides."""
    root = paint(tmp_path / "set", "cat/1.png", "cat/2.gif", ".ipynb_checkpoints/1.png", value=20)
    paint(tmp_path, "elsewhere/3.png", "elsewhere/4.png", value=200)
    (root / "dog").symlink_to("../elsewhere")
    (root / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    (root / "cat" / "half.png").write_bytes((root / "cat" / "1.png").read_bytes()[:50])
    (root / "cat" / "list.txt").write_text("")
    return root


MESS = [
    r"1 of 5 files of .*set cannot be read .* cat/half\.png \(",
    r"Passed over in .*set: 2 hidden or .*cat/list\.txt",
]
READ = ["cat/1.png", "cat/2.gif", "dog/3.png", "dog/4.png"]


def imagenet_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[FolderImages] = []
    monkeypatch.setattr(imagenet, "load_model", lambda *_: loaded())
    monkeypatch.setattr(imagenet, "layers_page", lambda subject, *_, **__: seen.append(subject.dataset))
    imagenet.run_imagenet(root / "out", data=root)
    return seen[0].files


READERS: dict[str, Callable[[Path, pytest.MonkeyPatch], list[Path]]] = {
    "patches": lambda root, _: FolderImages(root, loaded().preprocessing).files,
    "imagenet": imagenet_files,
    "references": lambda root, _: list(load_references(root, loaded(), k=1).files),
    "directions": lambda root, _: list(_read_images(root, loaded(), Fit(2), None, progress=False).files),
    "report": lambda root, _: report.folder_samples(root, loaded().preprocessing).dataset.files,
    "label": lambda root, _: list(label.folder_samples(root, loaded()).left_out.files),  # type: ignore[union-attr]
    "debias": lambda root, _: sorted(
        path for part in _parts(root, 0, root.parent / "out", progress=False)[:2] for path, _ in part
    ),
}


@pytest.mark.parametrize("command", READERS)
def test_a_messy_folder_is_read_the_same_and_said_the_same(
    messy: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(AbsenceWarning) as caught:
        files = READERS[command](messy, monkeypatch)
    assert [str(path.relative_to(messy)) for path in files] == READ
    said = [str(one.message) for one in caught]
    assert len(said) == 2
    for sentence, pattern in zip(said, MESS, strict=True):
        assert re.search(pattern, sentence), sentence


@pytest.mark.parametrize("command", READERS)
def test_a_folder_in_which_nothing_can_be_read_is_refused(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none of the 2 files of .* is an image that can be read; .*cat/1\.png: "):
        READERS[command](tmp_path, monkeypatch)


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_explain_takes_folders_and_says_on_its_page_what_it_left_out(messy: Path, tmp_path: Path) -> None:
    references = load_references(messy, loaded(("cat", "dog")), k=1)
    check_images([messy / "cat"])  # before torch is imported
    found = explain_images(
        [messy / "cat", tmp_path / "elsewhere" / "3.png"], loaded(("cat", "dog")), tmp_path / "page",
        references=references, method="relevance", progress=False,
    )  # fmt: skip
    assert found.count == 3  # two of the folder
    assert [path.name for path, _ in found.failed] == ["half.png"]
    page = found.page.read_text(encoding="utf-8")
    assert "1 of 5 files of" in page
    assert page.index("cannot be read as images") < page.index("Passed over in")
    assert list(json.loads((tmp_path / "page" / "unreadable.json").read_text())) == ["cat/half.png"]


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_one_bad_file_does_not_end_the_page_of_a_unit(
    messy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from absence_plugins.commands import unit_page

    counts: list[int] = []

    def row(model: nn.Module, unit: object, pictures: Tensor, *_: object, **__: object) -> Row:
        counts.append(len(pictures))
        return Row("Unit", "", (), ())

    monkeypatch.setattr(unit_page, "unit_row", row)
    found = explain_images([messy / "cat"], loaded(), tmp_path / "page", method="lucent:labels:0", progress=False)
    assert counts == [2]
    assert [path.name for path, _ in found.failed] == ["half.png"]
    assert found.summary().startswith("2 of 3 images")
    assert "Left out: half.png: " in found.page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"half\.png is not an image"):
        explain_images(
            [messy / "cat" / "half.png"], loaded(), tmp_path / "page", method="lucent:labels:0", progress=False
        )


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_names_of_any_bytes_reach_the_end(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9/na\xefve.png"), "dog/two\nlines.png"]
    root = paint(tmp_path / "set", *names)
    for name in names:
        (root / name).parent.joinpath(os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    data = FolderImages(root, loaded().preprocessing, known=tmp_path / "state")
    identity = data.item_identity(0)
    data.found.write(tmp_path)
    assert sorted(json.loads((tmp_path / "unreadable.json").read_text())) == ["caf\\xe9/\\xff.png", "dog/\\xff.png"]
    assert FolderImages(root, loaded().preprocessing, known=tmp_path / "state").item_identity(0) == identity
    references = load_references(root, loaded(), k=1)
    assert set(references.classes) == {"caf\\xe9", "dog"}
    describe_references(references, loaded()).encode()
    samples = label.folder_samples(root, loaded())
    assert set(samples.names) == {"caf\\xe9", "dog"}
    "".join([samples.source, *samples.left_out.notes]).encode()  # type: ignore[union-attr]
    page = explain_images(
        [root / name for name in names], loaded(), tmp_path / "page", method="relevance", progress=False
    )
    assert page.count == 2
    assert "na\\xefve.png" in page.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("folder", "asked"), [(NFC, NFD), (NFD, NFC), (NFD, NFD.lower())])
def test_contrasts_and_class_names_are_equal_in_any_composition(tmp_path: Path, folder: str, asked: str) -> None:
    paint(tmp_path, f"{folder}/1.png", value=200)
    paint(tmp_path, "cat/2.png")
    references = load_references(tmp_path, loaded(("cat", "LÖWE")), k=1)
    assert references.classes == {NFC: 1, "cat": 0}
    contrast = load_references(tmp_path, loaded(("cat", "LÖWE")), k=1, contrast=asked)
    assert contrast.contrast == 1 or [path.name for path in contrast.files] == ["1.png"]
    (tmp_path / "t.csv").write_text(f"class,big\n{asked if asked != NFD.lower() else NFC},1\ncat,0\n", encoding="utf-8")
    with pytest.warns(AbsenceWarning, match=r"t\.csv"):
        concepts = concepts_from_folder(tmp_path, tmp_path / "t.csv")
    assert concepts.concepts[:, 2].tolist() == [name == NFC for name in named(concepts)]


def named(concepts: object) -> list[str]:
    return [normal_name(path.parent.name) for path in concepts.files]  # type: ignore[attr-defined]


def test_a_contrast_that_is_a_number_and_another_folder_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, "1/a.png")
    paint(tmp_path, "2/b.png", value=200)
    references = load_references(tmp_path, loaded(), k=1)
    assert references.classes == {"1": 0, "2": 1}
    assert "counted from 1 in alphabetical order, as there is no output 2" in describe_references(references, loaded())
    with pytest.raises(ValueError, match=r"--contrast 1: class 1 of the model, or the folder 1, which is class 0\?"):
        load_references(tmp_path, loaded(), k=1, contrast="1")
    whole = load_references(tmp_path, loaded(), k=1, contrast=str(tmp_path / "1"))
    assert [path.name for path in whole.files] == ["a.png"]
    assert load_references(tmp_path, loaded(), k=1, contrast="0").contrast == 0


def test_references_beside_class_folders_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    root = paint(tmp_path / "set", "cat/1.png", "cover.png", "dog/2.png", value=200)
    with pytest.warns(AbsenceWarning, match=r"1 image lies beside the class folders of .* no class: cover\.png"):
        references = load_references(root, loaded(("cat", "dog")), k=1)
    assert [path.name for path in references.files] == ["1.png", "2.png"]
    assert references.read is not None
    assert any("cover.png" in note for note in references.read.notes)  # on the page


def test_folders_from_one_to_twelve_are_what_the_model_predicts(tmp_path: Path) -> None:
    class ByTens(nn.Module):
        """Class n for images of brightness 20 n."""

        def forward(self, x: Tensor) -> Tensor:
            return -(255 * x[:, 0, 4, 4, None] - 20 * torch.arange(12)).abs()

    for number in range(1, 13):
        paint(tmp_path, f"{number}/a.png", value=20 * (number - 1))
    model = LoadedModel(ByTens(), Preprocessing(8, 3, (0.0,) * 3, (1.0,) * 3), ())
    references = load_references(tmp_path, model, k=1)
    assert references.classes == {str(number): number - 1 for number in range(1, 13)}
    assert "counted from 1, as the model predicts so for 12 of 12 images (1 if" in describe_references(
        references, model
    )


def test_a_contrast_folder_says_only_what_was_left_out_of_it(messy: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "broken.png").symlink_to("nowhere")
    with pytest.warns(AbsenceWarning, match=r"1 of 3 files of .*dog/broken\.png \(a broken link\)\.$") as said:
        references = load_references(messy, loaded(), k=1, contrast="dog")
    assert len(said) == 1
    assert references.is_contrast
    assert [path.name for path in references.files] == ["3.png", "4.png"]


def test_of_several_frames_the_first_is_read_and_it_is_said(tmp_path: Path) -> None:
    root = paint(tmp_path / "set", "a.png")
    frames = [Image.new("RGB", (8, 8), (value,) * 3) for value in (250, 0, 10)]
    for name in ("moves.gif", "pages.tif"):
        frames[0].save(root / name, save_all=True, append_images=frames[1:])
    for _ in range(2):  # and again where nothing is decoded anew
        with pytest.warns(
            AbsenceWarning, match=r"2 files of .* have several frames or pages, .* moves\.gif \(3\)"
        ) as said:
            data = FolderImages(root, loaded().preprocessing, known=tmp_path / "state")
        assert len(said) == 1
        assert [round(float(data[k].mean()), 1) for k in range(3)] == [0.0, 1.0, 1.0]
