"""Kills kept work at random moments, resumes it, and compares the bits: `kill_worker.py FOLDER SEED WORK=KILLS ...`.

torch is imported once; every run is a fork. A run is killed at the n-th event, drawn over those that an undisturbed run
has: convolutions, files that are opened, synced, renamed, locked. For every kind of work a line of JSON is printed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.utils import save_image

from absence_plugins.bench import planted
from absence_plugins.commands.directions import Fit, _fit_pairs
from absence_plugins.commands.label import Samples, read_layer
from absence_plugins.commands.layers import Scan
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.commands.report import Wanted, run_report
from absence_plugins.core import files, ownership
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import Layer
from absence_plugins.experiments.debias import digits
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import influence
from absence_plugins.methods.identity import identify_data
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.report.unit import many

PER_RUN = 3  # kills of one piece of work before it may end
torch.set_num_threads(1)
torch.manual_seed(0)
NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3)).eval()  # fmt: skip
IMAGES = torch.rand(26, 3, 12, 12)
SCAN: dict[str, Any] = {"k": 3, "size": 8, "stride": 4, "batch_size": 8, "save_every": 0, "progress": False}
Found = dict[str, Tensor]


def scan(out: Path) -> Found:
    found = find_extreme_patches(NET, "2", IMAGES, checkpoint=out, **SCAN)
    return {"high": found.highest.scores, "low": found.lowest.positions, "sample": found.sample.scores}


def insertion(out: Path) -> Found:
    patches = find_extreme_patches(NET, "2", IMAGES, **SCAN)
    options = {"images_per_unit": 4, "batch_size": 8, "save_every": 0, "progress": False}
    found = insertion_test(NET, "2", IMAGES, patches, checkpoint=out, **options)
    return {"values": found.values, "images": found.images, "mirror": torch.tensor([one.mirror for one in found])}


def label(out: Path) -> Found:
    samples = Samples(
        Batches.of(IMAGES, 2), lambda k: IMAGES[k], torch.ones(len(IMAGES), 1), ("a",), "", data=identify_data(IMAGES)
    )
    return {"values": read_layer(NET, "2", samples, checkpoint=out, progress=False)}


def directions(out: Path) -> Found:
    fit = Fit(2, batch_size=4, options={"starts": 2})
    with own_folder(out):
        pairs, _, keeper = _fit_pairs(NET, Layer("0"), IMAGES, identify_data(IMAGES), fit, out, progress=False)
        found = influence(pairs, NET, "0", IMAGES, batch_size=4, n_permutations=50, checkpoint=keeper)
    return {"encoding": pairs.encoding, "decoding": pairs.decoding, "effect": found.effect, "p": found.p}


def report(out: Path) -> Found:
    loaded = LoadedModel(NET, Preprocessing(12, 3, (0.0,) * 3, (1.0,) * 3), "net", ())
    settings = Scan(size=8, stride=4, k=2, images_per_unit=4, batch_size=8)
    wanted = Wanted(units=range(3), skip=("maps", "pictures", "name", "faithfulness"))
    many.write_reports.__kwdefaults__["few"] = 1  # a page each
    page = run_report(
        loaded, "2", settings, wanted, out, folder=out.parent / "photos", command="report", progress=False
    )
    text = json.loads((out / "units.json").read_text())
    pages = b"".join((out / many.page_name(unit)).read_bytes() for unit in range(3)) + page.read_bytes()
    for one in text["units"]:
        one.pop("fingerprint", None)
    return {"units": as_bytes(json.dumps(text).encode()), "pages": as_bytes(pages)}


def debias(out: Path) -> Found:
    setting = digits.Setting(epochs=1, modes=("presence",), weights=(10.0,), batch_size=64)
    models: dict[tuple[str, float], nn.Module] = {}
    with own_folder(out):
        kept = Checkpoint(out, {"epochs": 1}, "training", belongs=digits._identify())
        found = digits.compare(setting, range(2), progress=False, models=models, checkpoint=kept)
    weights = {f"{mode}.{name}": value for (mode, _), net in models.items() for name, value in net.state_dict().items()}
    return {**weights, "scores": torch.stack([run.pack() for run in found.runs])}


def planted_bench(out: Path) -> Found:
    """Method by method, each kept on its own; the table is that of all of them, as the best order is of all answers."""
    settings = {"seeds": (0,), "samples": 2, "references": 1, "steps": 4}
    methods = dict(list(planted.CHANCE.items())[::8])
    with own_folder(out):
        for name, method in methods.items():
            planted._one("shape_missing", {name: method}, settings, out, False)
        table = planted._one("shape_missing", methods, settings, out, False)
    return {"tables": as_bytes(json.dumps(table.to_dict()).encode())}


def as_bytes(content: bytes) -> Tensor:
    return torch.tensor(list(content), dtype=torch.uint8)


WORKS: dict[str, Callable[[Path], Found]] = {
    "scan": scan, "insertion": insertion, "label": label, "directions": directions, "report": report, "debias": debias,
    "planted": planted_bench,
}  # fmt: skip


class Events:
    """Counts what happens; kills this process at event number ``last``."""

    def __init__(self, last: int | None) -> None:
        self.count, self.last = 0, last

    def watch(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.tick()
            found = real(*arguments, **options)
            self.tick()
            return found

        setattr(owner, name, watched)

    def tick(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def run(work: str, out: Path, result: Path, last: int | None) -> int:
    """A fork that does the work, and writes what it found; its exit code."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            events = Events(last)
            for name in ("replace", "fsync"):
                events.watch(files.os, name)
            events.watch(ownership, "try_lock")
            events.watch(files, "_open_draft")
            events.watch(nn.Conv2d, "forward")
            Checkpoint.save.__globals__["time"].monotonic = iter(range(0, 10**9, 100)).__next__  # a save is always due
            found = WORKS[work](out)
            save_file({name: value.contiguous() for name, value in found.items()}, result)
            result.with_suffix(".count").write_text(str(events.count))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def campaign(work: str, folder: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """Kill the work so often, and compare what it ends in."""
    assert run(work, folder / f"{work}-whole", folder / f"{work}-whole.st", None) == 0, work
    total, expected = int((folder / f"{work}-whole.count").read_text()), (folder / f"{work}-whole.st").read_bytes()
    codes: list[int] = []
    other = left = number = 0
    while codes.count(-signal.SIGKILL) < kills:
        out, result, number = folder / f"{work}-{number}", folder / f"{work}-{number}.st", number + 1
        for _ in range(PER_RUN):
            codes.append(run(work, out, result, draw.randrange(1, total)))
            if codes[-1] != -signal.SIGKILL or codes.count(-signal.SIGKILL) == kills:
                break
        codes.append(run(work, out, result, None))
        other += result.read_bytes() != expected
        left += len([path for path in out.rglob(".*") if path.is_file()])
    wrong = [code for code in codes if code not in (0, -signal.SIGKILL)]
    return {"work": work, "events": total, "kills": codes.count(-9), "other bits": other, "wrong": wrong, "left": left}


def main(folder: str, seed: str, *works: str) -> None:
    root = Path(folder)
    for number in range(len(IMAGES)):
        path = root / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(IMAGES[number], path)
    for one in works:
        work, _, kills = one.partition("=")
        print(json.dumps(campaign(work, root, int(kills), random.Random(f"{seed} {work}"))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
