"""Damaged files, a full disk, mixed folders and a second caller: named, and what can be made again is made again."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import Fork
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning, files
from absence_plugins.core.ownership import FolderInUse, own_folder
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.checkpoint import Checkpoint, read_record, write_record
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.kept_rows import KeptRows
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches

X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SCAN: dict[str, Any] = {"k": 2, "size": 4, "stride": 2, "batch_size": 9, "save_every": 0, "progress": False}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3))


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zero_tail(content: bytes) -> bytes:
    """What a power cut leaves: the right length, and zeros where the last blocks were not written."""
    return content[:-20] + bytes(20)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": cut_off,
    "zeros": lambda content: bytes(len(content)),
    "zeros at the end": zero_tail,
    "empty": lambda content: b"",
    "another format": lambda content: b"<html><body>Not found</body></html>" * 20,
}


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


# -- damaged files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["rank-00000.safetensors", "scan.json"])
def test_a_damaged_file_of_a_scan_is_named_and_made_again(name: str, kind: str, tmp_path: Path) -> None:
    expected = find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN)
    damage(tmp_path / name, kind)
    broken = (tmp_path / name).read_bytes()
    with pytest.warns(AbsenceWarning, match=rf"{name} is damaged .*kept as {name}.damaged"):
        assert find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN).to_dict() == expected.to_dict()
    assert (tmp_path / f"{name}.damaged").read_bytes() == broken
    assert find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN).to_dict() == expected.to_dict()


def kept_values(folder: Path, computed: list[int]) -> Tensor:
    """Values in files of two batches each; ``computed`` receives the first pixel's place in X of what was run."""
    kept = KeptRows(Checkpoint(folder, {}, "values", save_every=0), len(X))

    def rows(maps: Tensor) -> Tensor:
        computed.append(len(maps))
        return maps.flatten(1)

    return layer_values(net(), "0", Batches.of(X, 2), rows=rows, kept=kept, progress=False)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("lost", [[0], [2, 3], [5], [0, 1, 2, 3, 4, 5]])
def test_of_many_files_only_the_damaged_ones_are_computed_again(lost: list[int], kind: str, tmp_path: Path) -> None:
    computed: list[int] = []
    expected = kept_values(tmp_path, computed)
    parts = sorted(tmp_path.glob("values-*.safetensors"))
    assert (len(parts), len(computed)) == (6, 6)
    for number in lost:
        damage(parts[number], kind)
    computed.clear()
    with pytest.warns(AbsenceWarning, match="what it held is computed again"):
        assert torch.equal(kept_values(tmp_path, computed), expected)
    assert len(computed) == len(lost)
    computed.clear()
    assert torch.equal(kept_values(tmp_path, computed), expected)
    assert computed == []


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_record_is_named_and_made_again(kind: str, tmp_path: Path) -> None:
    write_record(tmp_path / "unit.json", "a", {"auc": 0.5})
    damage(tmp_path / "unit.json", kind)
    with pytest.warns(AbsenceWarning, match=r"unit\.json is damaged .*made again"):
        assert read_record(tmp_path / "unit.json", "a") is None


def test_files_that_something_else_wrote_are_known_by_their_content(tmp_path: Path) -> None:
    checkpoint, paths = Checkpoint(tmp_path, {}, "fit"), [tmp_path / "pairs.json", tmp_path / "pairs.bin"]
    assert not checkpoint.has_files("pairs", paths)
    for path in paths:
        path.write_text("pairs")
    checkpoint.save_files("pairs", paths)
    assert checkpoint.has_files("pairs", paths)
    for change in (lambda: paths[1].write_text("pair"), paths[1].unlink):
        change()
        with pytest.warns(AbsenceWarning, match=r"pairs\.bin is damaged or missing"):
            assert not checkpoint.has_files("pairs", paths)


# -- mixed folders ----------------------------------------------------------------------------------------------------


def test_parts_of_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        find_extreme_patches(net(), "0", X, checkpoint=tmp_path / str(seed), seed=seed, **SCAN)
    shutil.copy(tmp_path / "1" / "rank-00000.safetensors", tmp_path / "0" / "rank-00001.safetensors")
    with pytest.raises(
        ValueError, match=r"rank-00001\.safetensors belongs to another scan: seed is 1 there and 0 here"
    ):
        find_extreme_patches(net(), "0", X, checkpoint=tmp_path / "0", **SCAN)
    (tmp_path / "0" / "rank-00001.safetensors").unlink()
    (tmp_path / "0" / "scan.json").unlink()  # every part says whose it is
    with pytest.raises(
        ValueError, match=r"rank-00000\.safetensors belongs to another scan: seed is 0 there and 2 here"
    ):
        find_extreme_patches(net(), "0", X, checkpoint=tmp_path / "0", seed=2, **SCAN)
    find_extreme_patches(net(), "0", X, checkpoint=tmp_path / "0", **SCAN)
    assert json.loads((tmp_path / "0" / "scan.json").read_text())["seed"] == 0


def test_a_file_that_does_not_say_whose_it_is_is_set_aside_and_an_older_folder_refused(tmp_path: Path) -> None:
    expected = find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN)
    save_file(load_file(tmp_path / "rank-00000.safetensors"), tmp_path / "rank-00001.safetensors")
    with pytest.warns(AbsenceWarning, match="rank-00001.safetensors is damaged .it does not say whose work it is"):
        assert find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN).to_dict() == expected.to_dict()
    settings = json.loads((tmp_path / "scan.json").read_text())
    del settings["format"]
    (tmp_path / "scan.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="written by an older version"):
        find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN)


# -- a full disk ------------------------------------------------------------------------------------------------------


class FullDisk:
    """No space from the n-th write or sync on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        self.count, self.last = 0, last
        for name in ("fsync", "replace"):
            monkeypatch.setattr(files.os, name, self.watched(getattr(files.os, name)))

    def watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count >= self.last:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        return call


@pytest.mark.parametrize("work", ["scan", "insertion", "values"])
def test_a_disk_that_is_full_at_random_leaves_the_former_state(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = find_extreme_patches(net(), "0", X, images=range(6), **SCAN)

    def run(folder: Path | None) -> Any:
        if work == "scan":
            return find_extreme_patches(net(), "0", X, checkpoint=folder, **SCAN).to_dict()
        if work == "insertion":
            options = {"images_per_unit": 3, "batch_size": 2, "save_every": 0, "progress": False}
            return insertion_test(net(), "0", X, patches, checkpoint=folder, **options).to_dict()
        return kept_values(tmp_path / "memory" if folder is None else folder, []).tolist()

    expected, draw = run(None), random.Random(0)
    for number in range(5):
        folder, last, former = tmp_path / str(number), draw.randrange(3, 14), {}
        with monkeypatch.context() as patched:
            disk = FullDisk(patched, last)
            with pytest.raises(OSError, match="make space, and the same call resumes") as caught:
                run(folder)
            former = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert disk.count >= last
        assert caught.value.errno == errno.ENOSPC
        assert Path(caught.value.filename).parent == folder
        assert not [name for name in former if name.endswith((".part", ".damaged", ".owner"))]
        assert run(folder) == expected  # and there is room again


# -- a second caller --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", ["scan", "insertion", "values"])
def test_a_second_caller_is_told_before_it_works(work: str, tmp_path: Path) -> None:
    patches = find_extreme_patches(net(), "0", X, images=range(6), **SCAN)
    calls: dict[str, Callable[[], Any]] = {
        "scan": lambda: find_extreme_patches(net(), "0", X, checkpoint=tmp_path, **SCAN),
        "insertion": lambda: insertion_test(net(), "0", X, patches, checkpoint=tmp_path, progress=False),
        "values": lambda: kept_values(tmp_path, []),
    }
    told: list[str] = []

    def call() -> None:
        try:
            calls[work]()
        except FolderInUse as error:
            told.append(str(error))

    with own_folder(tmp_path):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert len(told) == 1
    assert f"{tmp_path} is in use by process" in told[0]
    calls[work]()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_two_processes_on_one_folder_one_runs_and_one_is_told(tmp_path: Path) -> None:
    class Waiting(torch.utils.data.Dataset[Any]):
        """Waits at image 6 until the file ``go`` is there."""

        def __init__(self, say: Callable[[str], None]) -> None:
            self.say = say

        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, number: int) -> Tensor:
            if number == 6:
                self.say("ready")
                while not (tmp_path / "go").exists():
                    time.sleep(0.01)
            return X[number]

    def work(say: Callable[[str], None]) -> None:
        torch.set_num_threads(1)
        found = find_extreme_patches(net(), "0", Waiting(say), checkpoint=tmp_path / "state", **SCAN)
        found.save(tmp_path / "found")

    first = Fork(work)
    assert first.line() == "ready"
    with pytest.raises(FolderInUse, match=rf"state is in use by process {first.pid} on .* since "):
        find_extreme_patches(net(), "0", X, checkpoint=tmp_path / "state", **SCAN)
    (tmp_path / "go").touch()
    assert first.wait() == 0
    expected = find_extreme_patches(net(), "0", X, **SCAN).to_dict()
    assert ExtremePatches.load(tmp_path / "found").to_dict() == expected
    assert find_extreme_patches(net(), "0", X, checkpoint=tmp_path / "state", **SCAN).to_dict() == expected
