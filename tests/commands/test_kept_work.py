"""What a command keeps belongs to the content of its images: the same names and sizes with another picture are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.utils import save_image

from absence_plugins.commands import directions, report
from absence_plugins.commands.image_folder import FolderImages
from absence_plugins.commands.label import folder_samples, read_layer
from absence_plugins.commands.layers import Scan
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.core import AbsenceWarning
from absence_plugins.experiments.debias import folder as debias
from absence_plugins.methods.patches import find_extreme_patches

PREPARED = Preprocessing(24, 3, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures in two classes; BMP files of one length, whatever they show."""
    generator = torch.Generator().manual_seed(0)
    for number in range(12):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number:02d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 24, 24, generator=generator), path)
    return tmp_path / "photos"


@pytest.fixture
def loaded() -> LoadedModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return LoadedModel(net.eval(), PREPARED, "net", ())


def repaint(path: Path) -> None:
    """Another picture of the same length."""
    before = path.stat().st_size
    save_image(torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(9)), path)
    assert path.stat().st_size == before


def work_of(command: str, loaded: LoadedModel, photos: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the command keeps before it writes its page."""

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def patches() -> Any:
        images = FolderImages(photos, loaded.preprocessing, known=state)
        options: dict[str, Any] = {"k": 2, "size": 8, "stride": 8, "batch_size": 18, "progress": False}
        return find_extreme_patches(loaded.model, "2", images, checkpoint=state, **options)

    def label() -> Any:
        samples = folder_samples(photos, loaded, batch_size=4, checkpoint=state)
        return read_layer(loaded.model, "2", samples, checkpoint=state, progress=False)

    def fitted() -> None:
        fit = directions.Fit(2, batch_size=4, options={"starts": 2})
        monkeypatch.setattr(directions, "directions_page", stop)
        with pytest.raises(KeyboardInterrupt):
            directions.model_directions(photos, loaded, "0", state / "page", fit, checkpoint=state, progress=False)

    def trained() -> None:
        monkeypatch.setattr(debias, "train_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            debias.run_folder(state, photos, debias.FolderSetting("resnet18", size=32), progress=False)

    return {"patches": patches, "label": label, "directions": fitted, "debias": trained}[command]


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("command", ["patches", "label", "directions", "debias"])
def test_another_picture_under_the_same_name_is_refused_by_its_name(
    command: str, photos: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: Callable[[], Any] = work_of(command, loaded, photos, tmp_path / "state", monkeypatch)
    work()
    work()  # the same images
    repaint(photos / "class0" / "04.bmp")
    with pytest.raises(ValueError, match=r"the images differ: image 2 \(class0/04\.bmp\) is another one"):
        work()
    (photos / "class0" / "04.bmp").rename(photos / "class0" / "05.bmp")
    with pytest.raises(ValueError, match=r"image 2 \(class0/05\.bmp, there class0/04\.bmp\) is another one"):
        work()


def test_another_preprocessing_is_refused(photos: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    def work(prepared: Preprocessing) -> Any:
        images = FolderImages(photos, prepared)
        options: dict[str, Any] = {"k": 2, "size": 8, "stride": 8, "batch_size": 18, "progress": False}
        return find_extreme_patches(loaded.model, "2", images, checkpoint=tmp_path / "state", **options)

    work(PREPARED)
    work(replace(PREPARED, source="its publisher"))  # the same pixels
    with pytest.raises(
        ValueError, match=r"another scan: identity is .Preprocessing\(.* there and .Preprocessing\(.* here"
    ):
        work(replace(PREPARED, mean=(0.5,) * 3))


def test_a_report_of_other_pictures_is_another_report(photos: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    def marks(model: LoadedModel) -> dict[str, str]:
        samples = report.folder_samples(photos, PREPARED, known=tmp_path / "state")
        return report._fingerprint(model, samples, "2", Scan(size=8), report.Wanted(units=[0]))

    before = marks(loaded)
    assert marks(loaded) == before
    repaint(photos / "class1" / "03.bmp")
    changed = marks(loaded)
    assert all(changed[name] != before[name] for name in before)
    other = nn.Sequential(*loaded.model)
    other[1] = nn.Sigmoid()
    assert all(marks(replace(loaded, model=other))[name] != changed[name] for name in before)


def test_a_damaged_memory_of_what_was_read_is_named(photos: Path, tmp_path: Path) -> None:
    first = FolderImages(photos, PREPARED, known=tmp_path / "state")
    (tmp_path / "state" / "readable.json").write_text('{"of": ')
    with pytest.warns(AbsenceWarning, match=r"readable\.json is damaged .*all images are read again"):
        again = FolderImages(photos, PREPARED, known=tmp_path / "state")
    assert [again.item_identity(k) for k in range(12)] == [first.item_identity(k) for k in range(12)]
