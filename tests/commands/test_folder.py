"""Files that are no images: found before the work, named, left out, and never silently."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.utils import save_image

from absence_plugins.commands import image_folder as module
from absence_plugins.commands.image_folder import FolderImages, readable
from absence_plugins.commands.models import Preprocessing, load_model
from absence_plugins.core import AbsenceWarning
from absence_plugins.data.folders import find_images
from absence_plugins.data.pictures import UnreadableImage
from absence_plugins.experiments.debias import folder as debias_folder
from absence_plugins.experiments.debias.folder import COLUMNS, FolderSetting, Pictures, run_folder
from absence_plugins.methods.patches.images import read

PREPARED = Preprocessing(16, 3, (0.0,) * 3, (1.0,) * 3)
BROKEN = {"b-cut.jpg", "c-empty.png", "d-text.png", "e-gone.png", "f-broken.png"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, five files that are none, and a folder with the name of one."""
    found = tmp_path / "photos"
    (found / "x.jpg").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for name in ("a.png", "z.jpg", "x.jpg/y.png"):
        save_image(torch.rand(3, 20, 20, generator=generator), found / name)
    save_image(torch.rand(3, 200, 200, generator=generator), found / "b-cut.jpg")
    whole = (found / "b-cut.jpg").read_bytes()
    (found / "b-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (found / "c-empty.png").touch()
    (found / "d-text.png").write_text("no picture")
    (found / "e-gone.png").symlink_to("nowhere")
    spoiled = bytearray((found / "a.png").read_bytes())
    spoiled[60:90] = bytes(30)  # inside the pixels: the header is right
    (found / "f-broken.png").write_bytes(spoiled)
    return found


def test_every_kind_of_file_that_is_no_image_is_left_out_with_its_name(photos: Path) -> None:
    Image.open(photos / "b-cut.jpg").close()  # a header alone does not tell
    with pytest.warns(
        AbsenceWarning, match=r"5 of 8 files of .*photos cannot be read .*b-cut\.jpg \(.*truncated"
    ) as caught:
        found = FolderImages(photos, PREPARED)
    assert [str(path.relative_to(photos)) for path in found.files] == ["a.png", "x.jpg/y.png", "z.jpg"]
    assert {path.name for path, why in found.found.unreadable if why} == BROKEN
    assert len(found) == 3
    assert all(found[number].shape == (3, 16, 16) for number in range(3))
    assert str(caught[0].message).endswith("d-text.png (not an image); and 2 more, all in unreadable.json.")
    found.found.write(photos)
    assert set(json.loads((photos / "unreadable.json").read_text())) == BROKEN


def test_a_folder_of_whole_images_says_nothing(photos: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name in BROKEN:
        (photos / name).unlink()
    (photos.parent / "unreadable.json").write_text("{}")  # of an earlier run
    found = FolderImages(photos, PREPARED).found
    found.write(photos.parent)
    assert not found.notes
    assert not (photos.parent / "unreadable.json").exists()
    assert not recwarn.list


def test_nothing_but_unreadable_files_is_an_error(photos: Path) -> None:
    for name in ("a.png", "z.jpg", "x.jpg/y.png"):
        (photos / name).unlink()
    with pytest.raises(ValueError, match=r"none of the 5 files of .* can be read; .*b-cut\.jpg: "):
        FolderImages(photos, PREPARED)


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_what_was_decoded_is_remembered_until_it_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = module.check_file

    def counted(path: Path, channels: int) -> str | list[Any]:
        looked.append(path.name)
        return real(path, channels)

    monkeypatch.setattr(module, "check_file", counted)
    files = find_images(photos)
    state = tmp_path / "state"
    first = readable(files, known=state, progress=False)
    decoded = BROKEN - {"e-gone.png"}  # of a broken link nothing is decoded
    assert len(looked) == 7
    looked.clear()
    assert readable(files, known=state, progress=False) == first
    assert set(looked) == decoded  # tried anew, as a file may come back
    looked.clear()
    (photos / "a.png").write_bytes((photos / "z.jpg").read_bytes()[:300])
    changed = readable(files, known=state, progress=False)
    assert set(looked) == {*decoded, "a.png"}
    assert len(changed.files) == 2
    assert set(changed.digests) != set(first.digests)
    looked.clear()
    (state / "readable.json").write_text('{"of": ')  # damaged: decoded again
    assert readable(files, known=state, progress=False) == changed
    assert len(looked) == 7


def test_what_was_decoded_is_saved_ever_more_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every save writes all of it, so the work must not grow with the square of the files."""
    for number in range(60):
        Image.new("L", (2, 2)).save(tmp_path / f"{number:02d}.png")
    saved: list[int] = []
    monkeypatch.setattr(module, "SAVED_EVERY", 2)
    monkeypatch.setattr(module, "write_whole", lambda _, text: saved.append(len(json.loads(text)["files"])))
    readable(find_images(tmp_path), known=tmp_path / "state", progress=False)
    assert saved[:3] == [2, 4, 6]
    assert saved[-1] == 60
    assert sum(saved) <= 5 * 60
    assert all(later <= 1.4 * former + 2 for former, later in pairwise(saved))


def test_no_memory_and_too_many_open_files_are_no_fault_of_an_image(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (MemoryError(), OSError(24, "Too many open files")):

        def fails(path: Path, mode: str, error: Exception = error) -> Image.Image:
            raise error

        monkeypatch.setattr(Path, "open", fails)
        with pytest.raises(type(error)):
            FolderImages(photos, PREPARED)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_after_the_check_is_named(photos: Path, workers: int) -> None:
    with pytest.warns(AbsenceWarning):
        found = FolderImages(photos, PREPARED)
    (photos / "x.jpg" / "y.png").write_bytes(b"")
    assert next(read(found, [[0]], workers))[0].shape == (3, 16, 16)
    with pytest.raises(UnreadableImage, match=r"y\.png is not an image"):
        list(read(found, [[0], [1]], workers))


def test_training_on_a_folder_leaves_them_out_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    for number in range(12):
        path = data / ("benign", "malignant")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.full((3, 20, 20), number / 12), path)
    (data / "benign" / "0.png").write_text("no picture")
    used: list[list[Path]] = []

    def seen(
        folder: Path, sets: tuple[Pictures, Pictures], *others: object, **options: object
    ) -> list[dict[str, float]]:
        used.extend([path for path, _ in part.files] for part in sets)
        assert all(path.parent.name == ("benign", "malignant")[label] for part in sets for path, label in part.files)
        return [dict.fromkeys(COLUMNS, 0.0)]  # no training

    monkeypatch.setattr(debias_folder, "_train", seen)
    with pytest.warns(AbsenceWarning, match=r"1 of 12 files .*benign/0\.png"):
        page = run_folder(tmp_path / "out", data, FolderSetting("resnet18", modes=("none",)), progress=False)
    assert [len(part) for part in used] == [9, 2]
    assert all(data / "benign" / "0.png" not in part for part in used)
    assert "0.png (not an image)" in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / "unreadable.json").read_text()) == {
        os.path.join("benign", "0.png"): "not an image"
    }


def test_a_label_s_concepts_stay_with_their_images(tmp_path: Path) -> None:
    from absence_plugins.commands.label import folder_samples

    for number, name in enumerate(("dark/1.png", "dark/2.png", "light/1.png", "light/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_image(torch.full((1, 32, 32), number / 4), tmp_path / name)
    (tmp_path / "dark" / "2.png").write_text("no picture")
    with pytest.warns(AbsenceWarning, match=r"dark/2\.png"):
        samples = folder_samples(tmp_path, load_model("digits"))
    assert samples.names == ("dark", "light")
    assert samples.concepts.tolist() == [[True, False], [False, True], [False, True]]
    means = torch.cat(list(samples.batches.read(samples.batches.numbers))).mean((1, 2, 3))
    assert torch.allclose(means, torch.tensor([0.0, 0.5, 0.75]), atol=0.01)
    assert float(samples.picture(1).mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(torch.cat(list(samples.batches.read([range(1, 3)]))).mean((1, 2, 3)), means[1:])
