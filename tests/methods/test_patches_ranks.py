"""A scan over several processes gives the same bits, and one that is killed goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches

WORKER = Path(__file__).with_name("scan_worker.py")
TABLES = ("highest", "lowest", "sample")


def scan(
    out: Path, ranks: int = 1, checkpoint: Path | str = "-", kill: str = "-", precision: str = "exact"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORKER), str(out), str(checkpoint), kill, precision]
    if ranks > 1:
        launcher = [
            "-m",
            "torch.distributed.run",
            f"--nproc_per_node={ranks}",
            "--master_port=0",
            "--rdzv_backend=c10d",
        ]
        command[1:1] = [*launcher, "--rdzv_endpoint=localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "patches.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, never killed."""
    out = tmp_path_factory.mktemp("scan") / "one"
    done = scan(out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_any_number_of_ranks_gives_the_same_bits(expected: Path, tmp_path: Path) -> None:
    done = scan(tmp_path / "out", 3)
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(tmp_path / "out", expected)


@pytest.mark.slow
def test_candidates_that_are_scored_again_are_shared_out_with_the_same_bits(tmp_path: Path) -> None:
    """Every rank's candidates are put together first: with bf16 the ranks' own ones would be others."""
    for ranks in (1, 2):
        done = scan(tmp_path / str(ranks), ranks, precision="bf16")
        assert done.returncode == 0, done.stderr[-2000:]
    assert same(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
@pytest.mark.parametrize("image", [20, 0, 36])
def test_a_killed_scan_goes_on(image: int, expected: Path, tmp_path: Path) -> None:
    killed = scan(tmp_path / "out", checkpoint=tmp_path / "state", kill=f"0:{image}")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    if image:
        done = load_file(tmp_path / "state" / "rank-00000.safetensors")["done"]
        assert 0 < int(done.sum()) < len(done)
    assert scan(tmp_path / "out", checkpoint=tmp_path / "state").returncode == 0
    assert same(tmp_path / "out", expected)
    assert not list((tmp_path / "state").glob(".*.part"))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 3)])
def test_one_rank_is_killed_and_any_number_of_ranks_goes_on(
    first: int, then: int, expected: Path, tmp_path: Path
) -> None:
    killed = scan(
        tmp_path / "out", first, tmp_path / "state", kill=f"{first - 1}:{ {1: 30, 2: 18}[first] }"
    )  # images of its
    assert killed.returncode != 0
    done = scan(tmp_path / "out", then, tmp_path / "state")
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(tmp_path / "out", expected)


# -- in one process ---------------------------------------------------------------------------------------------------


class Stopping(torch.utils.data.Dataset[Any]):
    """Raises KeyboardInterrupt at image ``stop``; counts what is read. Says what it is, so that none is read to know it."""

    identity = "noise"

    def __init__(self, stop: int = -1) -> None:
        self.images = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        self.stop, self.read = stop, []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.stop:
            raise KeyboardInterrupt
        self.read.append(index)
        return self.images[index]


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3))


def run(data: Any, folder: Path | None, seed: int = 0, **options: Any) -> ExtremePatches:
    chosen: dict[str, Any] = {
        "k": 4,
        "size": 4,
        "stride": 2,
        "batch_size": 20,
        "save_every": 0,
        "progress": False,
        **options,
    }
    return find_extreme_patches(model(seed), "0", data, checkpoint=folder, **chosen)


def test_after_an_interrupt_only_the_rest_is_read(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Stopping(7), tmp_path / "state", save_every=1e9)  # also what is not yet due is saved
    rest = Stopping()
    found = run(rest, tmp_path / "state")
    assert set(rest.read) == {0, 6, 7, 8, 9, 10, 11}  # two images a block; the first tells how large they are
    plain = run(Stopping(), None)
    assert found.to_dict() == plain.to_dict()
    assert torch.equal(found.sample.scores, plain.sample.scores)
    finished = Stopping()
    assert run(finished, tmp_path / "state").to_dict() == plain.to_dict()
    assert finished.read == [0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 3}, "size is 4 there and 3 here"),
        ({"k": 2}, "k is 4 there"),
        ({"units": [1]}, "units is"),
        ({"images": [1, 2, 3]}, "images is '12 of 12"),
        ({"seed": 1}, "the weights of the model differ: '0.weight' is another tensor"),
        ({"precision": "bf16"}, "precision is 'exact' there"),
    ],
)
def test_a_checkpoint_of_another_scan_is_refused(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    run(Stopping(), tmp_path / "state")
    before = {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    with pytest.raises(ValueError, match="belongs to another scan") as raised:
        run(Stopping(), tmp_path / "state", **options)
    assert named in str(raised.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is an existing file"):
        run(Stopping(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_states_that_overlap_count_once(tmp_path: Path) -> None:
    """What a run of two ranks leaves behind beside that of one: the same windows in several files."""
    with pytest.raises(KeyboardInterrupt):
        run(Stopping(9), tmp_path / "state")
    own = tmp_path / "state" / "rank-00000.safetensors"
    shutil.copy(own, tmp_path / "state" / "rank-00003.safetensors")
    assert run(Stopping(), tmp_path / "state").to_dict() == run(Stopping(), None).to_dict()
    assert json.loads((tmp_path / "state" / "scan.json").read_text())["k"] == 4
