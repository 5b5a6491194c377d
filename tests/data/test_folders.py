"""The walk over a folder of images: what counts as an image, what as a class, and what is said of the rest."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from absence_plugins.core.names import read_number, spell_name
from absence_plugins.data.folders import FoundImages, find_images
from absence_plugins.report import Page, Panel, Row, write_page


def make(folder: Path, *names: str | bytes) -> Path:
    """Empty files, with the folders above them."""
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(found: FoundImages) -> list[tuple[str, str | None]]:
    return [
        (str(path.relative_to(found.folder)), None if label is None else found.classes[label])
        for path, label in zip(found.files, found.labels, strict=True)
    ]


@pytest.mark.parametrize(
    "left", [".ipynb_checkpoints/a.png", "__MACOSX/._a.png", "@eaDir/a.png", "$RECYCLE.BIN/a.png", ".git/x/a.png"]
)
def test_folders_of_systems_and_tools_are_no_classes(tmp_path: Path, left: str) -> None:
    found = find_images(make(tmp_path, "cat/1.png", "dog/1.png", left, f"cat/{left}"))
    assert listed(found) == [("cat/1.png", "cat"), ("dog/1.png", "dog")]
    first = left.partition("/")[0]
    (note,) = found.notes
    assert note.startswith(f"Passed over in {tmp_path}: 2 hidden or system files and folders (")
    assert {first, f"cat/{first}"} == set(note.partition("folders (")[2].removesuffix(").").split(", "))


def test_hidden_files_are_no_images_and_every_extension_that_pillow_opens_is(tmp_path: Path) -> None:
    names = ("a.GIF", "b.jp2", "c.TIFF", "d.webp", "e.tga", "f.JPG")
    found = find_images(make(tmp_path, *names, "._a.gif", ".b.png", "Thumbs.db", "g.txt", "h", "i.pdf"))
    assert [path.name for path in found.files] == list(names)
    assert found.classes == ()
    assert set(found.labels) == {None}
    assert found.notes == (
        f"Passed over in {tmp_path}: 3 hidden or system files and folders (._a.gif, .b.png, Thumbs.db); "
        "3 files without the ending of an image (g.txt, h, i.pdf).",
    )


PLACES = ("cat", "dog", "cat/deep", "dog/a-b", "dog/a", "Dog", "2", "10", unicodedata.normalize("NFD", "Löwe"), "Zebra")


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(("a.png", "B.GIF", "10.png", "2.jp2"))),
        min_size=1,
        max_size=20,
        unique=True,
    )
)
def test_where_nothing_is_left_out_classes_and_order_are_those_of_image_folder(names: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = find_images(make(Path(folder), *map("/".join, names)))
        host = ImageFolder(folder, is_valid_file=lambda path: True)
        assert found.notes == found.class_notes == ()
        assert found.classes == tuple(unicodedata.normalize("NFC", name) for name in host.classes)
        assert list(zip(map(str, found.files), found.labels, strict=True)) == host.samples


def test_linked_classes_are_classes(tmp_path: Path) -> None:
    make(tmp_path / "set", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)))
    half, links = tmp_path / "half", tmp_path / "links"
    make(half, *(f"cat/{i}.png" for i in range(3)))
    links.mkdir()
    for where, name in ((half, "dog"), (links, "cat"), (links, "dog")):
        (where / name).symlink_to(tmp_path / "set" / name)
    for where in (half, links):
        found = find_images(where)
        assert (len(found), found.classes, found.notes) == (6, ("cat", "dog"), ())
        assert all(path.is_relative_to(where) for path in found.files)


def test_links_in_a_ring_end_and_every_image_counts_once(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "cat/deep/2.png", "dog/3.png")
    for name, aim in (
        ("cat/all", ".."), ("cat/deep/up", "../../cat"), ("cat/again.png", "1.png"), ("cat/a", "deep"), ("round", "."),
        ("dog/x.png", "y.png"), ("dog/y.png", "x.png"), ("dog/gone", "nowhere"), ("dog/gone.png", "nowhere.png"),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(aim)
    found = find_images(tmp_path)
    assert listed(found) == [("cat/1.png", "cat"), ("cat/deep/2.png", "cat"), ("dog/3.png", "dog")]
    passed = {str(path.relative_to(tmp_path)): why for path, why in found.passed_over}
    assert passed == {
        "cat/all": "loop", "cat/deep/up": "loop", "round": "loop", "cat/again.png": "again", "cat/a": "again"
    }  # fmt: skip
    assert [path.name for path, _ in found.unreadable] == ["gone", "gone.png", "x.png", "y.png"]
    assert found.notes[0].startswith(f"4 of 7 files of {tmp_path} cannot be read as images and were left out: dog/gone")


def test_one_image_in_two_classes_counts_in_both_and_is_named(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "dog" / "both.png").symlink_to("../cat/1.png")
    found = find_images(tmp_path)
    assert listed(found) == [("cat/1.png", "cat"), ("dog/2.png", "dog"), ("dog/both.png", "dog")]
    assert found.class_notes == (
        f"1 image of {tmp_path} is in more than one class, by links, and counts in each: 1.png in cat and dog.",
    )
    make(tmp_path, "pool.png")  # a pool of images, and classes that link to them
    (tmp_path / "dog" / "chosen.png").symlink_to("../pool.png")
    found = find_images(tmp_path)
    assert len(found) == 4
    assert None not in found.labels


def test_names_of_any_bytes(tmp_path: Path) -> None:
    found = find_images(make(tmp_path, b"caf\xe9/na\xefve.png", b"two\nlines/1.png", "日本/①.png", b"caf\xe9/\xff"))
    assert found.classes == ("caf\\xe9", "two\\nlines", "日本") or found.classes[-1] == "caf\\xe9"
    assert all(path.exists() for path in found.files)
    "".join(found.notes).encode()
    assert "caf\\xe9/\\xff" in found.notes[0]
    assert len(found.notes[0].splitlines()) == 1


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Löwe") for form in ("NFC", "NFD"))
    assert composed != decomposed
    found = find_images(make(tmp_path, f"{composed}/1.png", f"{decomposed}/2.png", "Zebra/3.png"))
    assert found.classes in ((composed, "Zebra"), ("Zebra", composed))
    assert sorted(listed(found)) == sorted(
        [(f"{composed}/1.png", composed), (f"{decomposed}/2.png", composed), ("Zebra/3.png", "Zebra")]
    )
    assert found.class_notes[0].startswith("2 folders are called Löwe, in letters that are encoded differently")
    alone = find_images(make(tmp_path / "alone", f"{decomposed}/2.png"))
    assert (alone.classes, alone.class_notes) == ((composed,), ())


def test_pages_that_commands_wrote_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "figures/2.png")
    panel = Panel("image", torch.zeros(3, 4, 4), "Input")
    for out in ("absence-patches", "cat/page", "site"):
        write_page(Page("Words", "Lead.", (Row("Row", "", (panel,), ()),)), tmp_path / out)
        assert list((tmp_path / out / "figures").glob("*.png"))
    found = find_images(tmp_path)
    assert found.classes == ("cat", "figures")
    assert "3 folders of pages of absence-plugins (absence-patches, cat/page, site)" in found.notes[0]
    write_page(Page("Words", "Lead.", (Row("Row", "", (panel,), ()),)), tmp_path)  # --out .
    assert find_images(tmp_path).classes == ("cat",)
    (tmp_path / "site" / "index.html").write_text("<html>of the user's</html>")
    assert "site" in find_images(tmp_path).classes


def test_folders_without_images_and_images_beside_folders_are_said(tmp_path: Path) -> None:
    found = find_images(make(tmp_path, "cat/1.png", "docs/readme.md", "cover.png"))
    assert found.classes == ("cat",)
    assert listed(found.with_class()) == [("cat/1.png", "cat")]
    assert found.class_notes == (
        f"1 folder of {tmp_path} holds no images and is no class: docs.",
        f"1 image lies beside the class folders of {tmp_path} and belongs to no class: cover.png.",
    )


def test_a_folder_that_cannot_be_opened_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png", "cat/closed/2.png")
    real = os.scandir

    def refusing(path: str) -> object:
        if os.path.basename(path) in ("closed", "dog"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_images(tmp_path)
    assert listed(found) == [("cat/1.png", "cat")]
    assert found.notes == (f"Passed over in {tmp_path}: 2 folders that cannot be opened (cat/closed, dog).",)
    assert found.class_notes == ()
    with pytest.raises(ValueError, match=r"folder .*dog cannot be opened \(Permission denied\)"):
        find_images(tmp_path / "dog")


def test_what_is_no_folder_of_images_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a/b.txt")
    with pytest.raises(ValueError, match=r"references folder .*nowhere does not exist"):
        find_images(tmp_path / "nowhere", "references folder")
    with pytest.raises(ValueError, match=r"b\.txt is a file"):
        find_images(tmp_path / "a" / "b.txt")
    with pytest.raises(
        ValueError, match=r"folder .*a holds no images\. Passed over .*: 1 file without the ending of an image"
    ):
        find_images(tmp_path / "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(tmp_path: Path) -> None:
    make(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    found = find_images(tmp_path)
    assert [why for _, why in found.unreadable] == ["no regular file"]
    assert len(found) == 1


@pytest.mark.parametrize(
    "text", ["²", "①", "٣", "٣٣", "01", "+1", "1_000", "1.0", " 1", "1 ", "", "--1", "-0", "9" * 5000]
)
def test_what_is_no_number_is_a_name(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize("number", [0, 7, -1, 1000, 10**17])
def test_numbers_are_read(number: int) -> None:
    assert read_number(str(number)) == number


def test_spelled_names_can_be_written(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"\xff\xfe"), "\ud800", "a\x1b[2Jb", "ü"):
        assert spell_name(name).encode().decode().isprintable()
    assert spell_name("dies ist Löwe №5") == "dies ist Löwe №5"
