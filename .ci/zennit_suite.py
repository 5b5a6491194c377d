"""Zennit's own tests with our composites registered.

Zennit's tests run over ``zennit.composites.COMPOSITES``, which the import of ``absence_plugins.zennit``
extends. The tests of the source distribution of 0.5.1 are run unchanged against the installed Zennit:
by default those that get one of our composites, which are test_composites.py (alexnet, vgg11, resnet18)
and two tests of test_attribution.py (linear layers, convolutions, transposed ones). Every one of them
must pass, and every one of our composites must meet every test of its kind with every model and every
type of layer.

    python .ci/zennit_suite.py                    # needs the network, or --sdist FILE
    python .ci/zennit_suite.py --all              # also what does not touch our code: 127,000 tests
    python .ci/zennit_suite.py --classes broken   # rules that leave hooks behind: must fail

Measured on two cores beside other work: 130 to 170 s (2 minutes of processor time). --all: 20 minutes,
127,052 pass, and the other 72, of test_image.py, fail with Zennit alone (Pillow 13 does not take its
palettes). "broken" fails after 50 s, and by hand, with one test function at a time, each of the seven does
at its first test; so does test_gradient_attributor_composite if composites only scale the output by 1.001.

Two things save time. torchvision's models are made once; Zennit's tests put hooks on them and take them
off, and run them never. And of test_attribution.py the random seeds that Zennit itself marks "extended"
(six of eight) are left out without ``--all``.

This file is also the pytest plugin of the runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

VERSION = "0.5.1"

# Fewer composites or tests with them mean that the check no longer checks (measured: 8, 14,352).
COMPOSITES_FLOOR = 8
TESTS_FLOOR = 14_000

# Of each process; it stops there. Hooks that stay on the models make every later test slower.
FAILURES_CEILING = 300

# What each of our composites must meet: the tests of its kind, and there all of these.
MODELS = ["alexnet", "vgg11", "resnet18"]
LAYERS = ["Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
TESTS = {
    "layer_map_composite": [
        "test_composite_layer_map_registered",
        "test_composite_name_map_registered",
        "test_composite_name_layer_map_registered",
        "test_composite_mixed_registered",
    ],
    "special_first_layer_map_composite": [
        "test_composite_special_first_layer_map_registered",
        "test_composite_mixed_registered",
    ],
    "any_composite": ["test_gradient_attributor_inactive", "test_gradient_attributor_composite"],
}

# Of the two processes; with --all, the second one runs all other files, too.
FILES = ["test_attribution.py", "test_composites.py"]


# ---------------------------------------------------------------------------- inside a pytest run


class Suite:
    """Chooses the tests, and writes their outcomes where the parent process reads them."""

    def __init__(self, file: Path, everything: bool) -> None:
        from zennit.composites import COMPOSITES

        self.file, self.everything = file, everything
        self.ours = {composite: name for name, composite in COMPOSITES.items() if name.startswith("absence_")}
        self.items: dict[str, tuple[str, list[tuple[str, str]], list[str]]] = {}
        self.outcomes: dict[str, str] = {}
        self.messages: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Without --all, keep the tests of our composites; note what every test is about."""
        dropped = []
        for item in items:
            given = item.callspec.params if hasattr(item, "callspec") else {}
            ours = [
                (fixture, self.ours[value])
                for fixture, value in given.items()
                if isinstance(value, type) and value in self.ours
            ]
            extended = item.path.name == "test_attribution.py" and item.get_closest_marker("extended")
            if not self.everything and (not ours or extended):
                dropped.append(item)
                continue
            partners = [given["model_vision"].__name__] if "model_vision" in given else []
            partners += [given["module_linear"][0].__name__] if "module_linear" in given else []
            self.items[item.nodeid] = item.function.__name__, ours, partners
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item.nodeid in self.items]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._failed(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._failed(report)
        elif report.when == "call" or report.outcome != "passed":
            self.outcomes.setdefault(report.nodeid, report.outcome)

    def _failed(self, report: Any) -> None:
        self.outcomes[report.nodeid] = "failed"
        crash = getattr(report.longrepr, "reprcrash", None)
        message = str(crash.message if crash else report.longrepr)
        self.messages.setdefault(report.nodeid, " ".join(message.split())[:200])

    def pytest_sessionfinish(self) -> None:
        counts: Counter[tuple[str, str]] = Counter()  # of the tests with a composite of ours
        not_ours = [test for test in self.messages if test in self.items and not self.items[test][1]]
        meetings: set[tuple[str, ...]] = set()
        for test, (function, ours, partners) in self.items.items():
            outcome = self.outcomes.get(test, "not run")
            if ours:
                counts[function, outcome] += 1
            if outcome == "passed":
                meetings |= {(fixture, function, name, partner) for fixture, name in ours for partner in partners}
        record = {
            "outcomes": Counter(self.outcomes.get(test, "not run") for test in self.items),
            "counts": [(*key, count) for key, count in sorted(counts.items())],
            "meetings": sorted(meetings),
            "messages": self.messages,
            "failed_not_ours": not_ours,
            "composites": {name: kind(composite) for composite, name in self.ours.items()},
        }
        self.file.write_text(json.dumps(record))


def kind(composite: type) -> str:
    """The fixture that Zennit's conftest.py makes of a composite, beside `any_composite`."""
    from zennit.composites import SpecialFirstLayerMapComposite

    first = "special_first_" if issubclass(composite, SpecialFirstLayerMapComposite) else ""
    return f"{first}layer_map_composite"


def broken(composite: type) -> type:
    """The composite with rules that leave a hook behind, change the output and are never inactive."""

    def stays(template: Any) -> Any:
        ours = type(template)

        def register(self: Any, module: Any) -> Any:
            module.register_forward_hook(lambda module, input, output: 1.001 * output)
            return ours.register(self, module)

        if ours.__module__.startswith("absence_plugins."):
            active = property(lambda self: True, lambda self, value: None)
            template.__class__ = type(ours.__name__, (ours,), {"register": register, "active": active})
        return template

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        composite.__init__(self, *args, **kwargs)  # type: ignore[misc]
        for layer_map in (self.layer_map, getattr(self, "first_map", [])):
            layer_map[:] = [(types, stays(template)) for types, template in layer_map]

    return type(composite.__name__, (composite,), {"__init__": __init__})


def without_extended(fixture: Any, *args: Any, params: Any = None, **kwargs: Any) -> Any:
    """``pytest.fixture`` without the parameters that are marked as extended."""
    if params is not None:
        params = [one for one in params if "extended" not in {mark.name for mark in getattr(one, "marks", ())}]
    return fixture(*args, params=params, **kwargs)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    """Register our composites before Zennit's conftest.py reads the dict, and let it make models once.

    In the scope "alone" (test_attribution.py, whose tests get one composite each) it reads ours only, and the seeds that
    are not extended: pytest took longer to make and to drop 89,000 other tests than to run ours.
    """
    import torchvision.models
    from zennit.composites import COMPOSITES

    classes = os.environ["ZENNIT_SUITE_CLASSES"]
    if classes != "zennit":
        import absence_plugins.zennit  # noqa: F401
    if classes == "broken":
        ours = {name: broken(composite) for name, composite in COMPOSITES.items() if name.startswith("absence_")}
        COMPOSITES.update(ours)
    registered = dict(COMPOSITES)
    fixture = pytest.fixture
    if os.environ["ZENNIT_SUITE_SCOPE"] == "alone":
        for name in registered:
            if not name.startswith("absence_"):
                del COMPOSITES[name]
        pytest.fixture = functools.partial(without_extended, fixture)  # type: ignore[assignment]
    originals = {name: getattr(torchvision.models, name) for name in MODELS}
    try:
        for name, original in originals.items():
            setattr(torchvision.models, name, functools.cache(original))
        yield
    finally:  # other test modules read all composites, and change the models that they make
        pytest.fixture = fixture
        COMPOSITES.clear()
        COMPOSITES.update(registered)
        for name, original in originals.items():
            setattr(torchvision.models, name, original)


def pytest_configure(config: Any) -> None:
    everything = os.environ["ZENNIT_SUITE_SCOPE"] == "all"
    config.pluginmanager.register(Suite(Path(os.environ["ZENNIT_SUITE_RECORD"]), everything))


# -------------------------------------------------------------------------------------- the parent


def unpack(sdist: Path, folder: Path) -> None:
    """Put Zennit's `tests` into the folder, as they are."""
    (folder / "tests").mkdir()
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member) if member.isfile() else None
            path = Path(member.name)
            if content is not None and path.parent.name == "tests" and path.suffix == ".py":
                (folder / "tests" / path.name).write_bytes(content.read())


def download(folder: Path) -> Path:
    """Fetch the source distribution; pip asks it for its version, which needs setuptools_scm from the network."""
    wanted = ["--no-deps", "--no-binary", "zennit", f"zennit=={VERSION}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
    subprocess.run(command, check=True)
    return next(folder.glob("zennit-*.tar.gz"))


def start(folder: Path, files: list[str], everything: bool, classes: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start one run of some files of Zennit's tests; it writes its record into the folder."""
    record = folder / f"{classes}-{files[0]}.json"
    scope = "all" if everything else "alone" if files == FILES[:1] else "ours"
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "ZENNIT_SUITE_CLASSES": classes,
        "ZENNIT_SUITE_SCOPE": scope,
        "ZENNIT_SUITE_RECORD": str(record),
        "OMP_NUM_THREADS": "1",  # two runs at a time, and tiny models
    }
    command = [sys.executable, "-m", "pytest", *(f"tests/{file}" for file in files), "-p", "zennit_suite", "-q"]
    command += ["-p", "no:cacheprovider", "-W", "ignore", "--tb=short", "--rootdir", str(folder)]
    command += ["--maxfail", str(FAILURES_CEILING)]
    log = record.with_suffix(".log").open("wb")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT), record


def finish(runs: list[tuple[subprocess.Popen[bytes], Path]]) -> list[dict[str, Any]]:
    """Wait for runs and read their records; exit where there is none."""
    try:
        codes = [process.wait() for process, _ in runs]
    finally:
        for process, _ in runs:
            process.kill()
    for (_, record), code in zip(runs, codes, strict=True):
        if code not in (0, 1) or not record.exists():
            print(record.with_suffix(".log").read_text()[-5000:])
            sys.exit(f"pytest ended with {code} in place of a result")
    return [json.loads(record.read_text()) for _, record in runs]


def drift(folder: Path, records: list[dict[str, Any]]) -> list[str]:
    """The tests without a composite of ours that fail even without its import; taken out of the records."""
    failed = {test for record in records for test in record["failed_not_ours"]}
    if not failed:
        return []
    files = sorted({Path(test.split("::")[0]).name for test in failed})
    (alone,) = finish([start(folder, files, True, "zennit")])
    found = sorted(failed & alone["messages"].keys())
    for record in records:
        for test in found:
            record["messages"].pop(test, None)
    return found


def problems(records: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the runs."""
    outcomes: Counter[str] = Counter()
    for record in records:
        outcomes.update(record["outcomes"])
    found = [f"{count} tests {outcome}" for outcome, count in outcomes.items() if outcome not in ("passed", "failed")]
    composites = records[0]["composites"]
    if len(composites) < COMPOSITES_FLOOR:
        found.append(f"only {len(composites)} composites are registered, expected at least {COMPOSITES_FLOOR}")
    passed = sum(count for record in records for _, outcome, count in record["counts"] if outcome == "passed")
    if passed < TESTS_FLOOR:
        found.append(f"only {passed} tests of our composites passed, expected at least {TESTS_FLOOR}")
    met = {tuple(meeting) for record in records for meeting in record["meetings"]}
    for name, own_fixture in composites.items():
        for fixture in (own_fixture, "any_composite"):
            for test in TESTS[fixture]:
                partners = LAYERS if fixture == "any_composite" else MODELS
                missing = [partner for partner in partners if (fixture, test, name, partner) not in met]
                if missing:
                    found.append(f"{name} passed {test} not once with {', '.join(missing)}")
    return found + [f"{test}: {message}" for record in records for test, message in record["messages"].items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--all", action="store_true", help="every test of Zennit, and all of its seeds")
    parser.add_argument("--classes", choices=["installed", "broken"], default="installed")
    parser.add_argument("--sdist", type=Path, help=f"zennit-{VERSION}.tar.gz, if already there")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(options.sdist or download(folder), folder)
        first, second = FILES
        others = sorted({file.name for file in (folder / "tests").glob("test_*.py")} - {first})
        parts = [[first], others if options.all else [second]]
        records = finish([start(folder, part, options.all, options.classes) for part in parts])
        drifted = drift(folder, records)

    found = problems(records)
    passed = sum(record["outcomes"].get("passed", 0) for record in records)
    total = sum(sum(record["outcomes"].values()) for record in records)
    which = "all seeds" if options.all else "of test_attribution.py without the six seeds marked as extended"
    print(f"Zennit {VERSION}'s tests with ours registered, {which}: {passed} of {total} pass")
    composites = records[0]["composites"]
    print(f"{len(composites)} composites of ours: {', '.join(composites)}")
    for record in records:
        for function, outcome, count in record["counts"]:
            print(f"  {count:6d} {outcome}  {function}")
    if drifted:
        print(f"{len(drifted)} fail with Zennit alone (what it imports has changed since):")
        print(*(f"  {test}" for test in drifted[:10]), sep="\n")
    print(*found[:40], sep="\n")
    verdict = f"{len(found)} problems" if found else "no problem"
    print(f"{verdict}, {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
