"""A folder of images is read once by all ranks together, each its share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from torchvision.utils import save_image

from absence_plugins.commands import image_folder
from absence_plugins.commands.directions import Fit, model_directions
from absence_plugins.commands.image_folder import readable
from absence_plugins.commands.label import read_layer
from absence_plugins.commands.label_samples import folder_samples
from absence_plugins.commands.layers import Scan
from absence_plugins.commands.models import load_model
from absence_plugins.commands.patches import patches_page
from absence_plugins.commands.preprocessing import Preprocessing
from absence_plugins.commands.report import Wanted, run_report
from absence_plugins.data.folders import find_images
from absence_plugins.methods.ranks import is_first, ranks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for number in range(14):
        path = tmp_path / "images" / ("dark", "light")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(1, 32, 32, generator=generator), path)
    (tmp_path / "images" / "dark" / "04.png").write_text("no picture")
    return tmp_path / "images"


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("world", [2, 4])
def test_every_file_is_decoded_by_one_rank(world: int, folder: Path, tmp_path: Path) -> None:
    expected = readable(find_images(folder), 1, progress=False)

    def work() -> Any:
        seen: list[str] = []
        plain = image_folder.read_picture
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                image_folder, "read_picture", lambda path, *a, **o: seen.append(path.name) or plain(path, *a, **o)
            )
            found = readable(find_images(folder), 1, known=tmp_path / "state", progress=False)
        return found, seen

    found = run_ranks(world, work)
    assert sorted(name for _, seen in found for name in seen) == [f"{number:02d}.png" for number in range(14)]
    assert max(len(seen) for _, seen in found) <= -(-14 // world)
    assert all(each == expected for each, _ in found)
    again = run_ranks(world, work)
    assert [name for _, seen in again for name in seen] == ["04.png"]  # what cannot be read is tried anew
    assert all(each == expected for each, _ in again)


def test_ranks_that_see_other_files_are_told(folder: Path) -> None:
    def work() -> Any:
        return readable(find_images(folder / ("dark", "light")[ranks()[0]]), 1, progress=False)

    for each in run_ranks(2, work):
        assert each.startswith("ValueError: rank 1 finds 7 images and rank 0 7, or others; the folder must be the same")


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_the_values_of_label_are_the_same_bits_and_each_rank_reads_its_share(folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)

    def work(state: Path | None) -> Any:
        loaded = load_model("digits")
        samples = folder_samples(folder, loaded, batch_size=2, checkpoint=state)
        seen: list[str] = []
        plain = Preprocessing.picture
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Preprocessing, "picture", lambda self, path: seen.append(path.name) or plain(self, path))
            values = read_layer(loaded.model, "linear1", samples, checkpoint=state, progress=False)
        return values, seen, is_first()

    expected, _, _ = work(None)
    for world in (2, 4):
        found = run_ranks(world, work, tmp_path / f"state-{world}")
        assert torch.equal(found[0][0], expected)
        assert all(len(values) == 0 for values, _, _ in found[1:])
        assert max(len(seen) for _, seen, _ in found) <= 2 + 2 * -(
            -7 // world
        )  # the first batch says what the data are
    resumed, seen, _ = work(tmp_path / "state-4")
    assert torch.equal(resumed, expected)
    assert len(seen) == 2


def patches(folder: Path, out: Path, state: Path) -> None:
    scan = Scan(size=16, stride=16, k=2, mode="mask", units=[0, 1], images_per_unit=4, batch_size=8, checkpoint=state)
    patches_page(load_model("digits"), folder, "conv2", scan, out, progress=False)


def directions(folder: Path, out: Path, state: Path) -> None:
    fit = Fit(2, batch_size=4, options={"starts": 2})
    model_directions(folder, load_model("digits"), "conv2", out, fit, checkpoint=state, progress=False)


def report(folder: Path, out: Path, state: Path) -> None:
    scan = Scan(size=16, stride=16, k=2, mode="mask", images_per_unit=4, batch_size=8)
    wanted = Wanted([0, 1], skip=("maps", "pictures", "faithfulness"))
    run_report(load_model("digits"), "conv2", scan, wanted, out, folder=folder, progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize(
    ("command", "results"), [(patches, "results.json"), (directions, "results.json"), (report, "units.json")]
)
def test_commands_write_the_same_results_for_any_number_of_ranks(
    command: Callable[[Path, Path, Path], None], results: str, folder: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    found = []
    for world in (1, 2, 4):
        out = tmp_path / f"out-{world}"
        run = partial(run_ranks, world, command, folder, out, tmp_path / f"state-{world}")
        assert run() == [None] * world
        found.append((out / results).read_text())
        assert (out / "index.html").is_file()
    assert found[0] == found[1] == found[2]
