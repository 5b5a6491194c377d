"""Captum's own test modules with our classes in place of Captum's.

The last source distribution of Captum that ships tests is 0.3.1. They are run against the installed
Captum with every class of ``captum.attr`` that a test module imports exchanged for the neutral subclass
from ``absence_plugins.captum``. Every single call of ``attribute`` is repeated on Captum's class with the
same arguments and random state, and compared bit for bit. Tests that fail run once more with Captum's own
classes, and must fail there, too. Captum's modules are not touched: only what the *test* modules import is
exchanged.

    python .ci/captum_suite.py                    # needs the network, or --sdist FILE
    python .ci/captum_suite.py --classes broken   # ours one bit off: must fail

This file is also the pytest plugin of the two runs. Captum's configuration table of today's version
is `tests/test_captum_upstream.py`, which runs with our normal tests.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERSION = "0.3.1"

# Fewer tests or compared calls than this mean that the check no longer checks (measured: 683, 3,321).
TESTS_FLOOR = 670
CALLS_FLOOR = 3000

# Needs two GPUs and starts a process group when imported.
LEFT_OUT = ["attr/test_data_parallel.py"]

# What Captum has renamed since, and the deprecation periods that have ended. Applied to both runs.
RENAMES = {
    r"\b_format_input\b": "_format_tensor_into_tuples",
    r"\bn_perturb_samples=n_perturb_samples": "n_samples=n_perturb_samples",
    r"\bneuron_index=": "neuron_selector=",
    r"\bn_perturb_samples=20000\b": "n_perturb_samples=2000",  # of 3 features: a third of the time of all tests
    r"\bwith self\.assertWarns\(DeprecationWarning\):": "if True:",
}
NOISE_TUNNEL_RENAMES = {
    r'"n_samples": 20\b': '"nt_samples": 20',
    r"(?<!\w)n_samples=(10|n_samples)\b": r"nt_samples=\1",
}
NOISE_TUNNEL_FILES = {
    "attr/helpers/test_config.py",
    "attr/test_saliency.py",
    "attr/test_input_x_gradient.py",
    "attr/test_integrated_gradients_basic.py",
}
METRICS_FILES = "metrics/"  # here n_perturb_samples is still the name


# ---------------------------------------------------------------------------- inside a pytest run


class Comparison:
    """Stand-ins for Captum's classes that compare every call of `attribute` with the original."""

    def __init__(self, classes: str) -> None:
        sys.path.insert(0, str(ROOT / "tests" / "adapters"))
        from captum import attr

        from test_captum_upstream import NAMES

        self.calls: Counter[str] = Counter()
        self.differences: list[str] = []
        hosts = [getattr(attr, name) for name in NAMES]
        self.stand_ins = {host: self._stand_in(_ours(host, classes), host) for host in hosts}

    def _stand_in(self, ours: type, host: type) -> type:
        from captum.log import log_usage

        from test_captum_upstream import NEUTRAL

        comparison = self

        class Identity(type(ours)):  # type: ignore[misc]
            """Answers `issubclass(KernelShap, Lime)` as Captum's classes would."""

            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, host)

            def __subclasscheck__(cls, subclass: type) -> bool:
                return issubclass(subclass, host)

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            self.constructor_call = args, kwargs
            ours.__init__(self, *args, **kwargs, **NEUTRAL)

        def attribute(self: Any, *args: Any, **kwargs: Any) -> Any:
            original = host(*self.constructor_call[0], **self.constructor_call[1])
            copied_args, copied_kwargs = _own_graph((args, kwargs))
            return comparison.compare(
                host.__name__,
                lambda: original.attribute(*copied_args, **copied_kwargs),
                lambda: ours.attribute(self, *args, **kwargs),
            )

        attribute.__signature__ = inspect.signature(ours.attribute)  # type: ignore[attr-defined]
        members = {"__init__": __init__, "attribute": log_usage()(attribute)}
        return Identity(host.__name__, (ours,), members)

    def compare(self, name: str, original: Any, ours: Any) -> Any:
        """Run both from one random state, and return (or raise) what ours does."""
        from test_captum_upstream import (
            random_state,
            same_bits,
            same_random_state,
            set_random_state,
        )

        before = random_state()
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars are tested, too
            expected, expected_error = _outcome(original)
        expected_state = random_state()
        set_random_state(before)
        actual, error = _outcome(ours)
        self.calls[name] += 1
        if (type(error), str(error)) != (type(expected_error), str(expected_error)):
            self._differs(name, f"{error!r} in place of {expected_error!r}")
        elif error is None and not same_bits(expected, actual):
            self._differs(name, "other bits")
        elif not same_random_state(expected_state, random_state()):
            self._differs(name, "other random draws")
        if error is not None:
            raise error
        return actual

    def _differs(self, name: str, what: str) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "?").split(" ")[0]
        self.differences.append(f"{test}: {name}: {what}")

    def install(self) -> None:
        """Give our stand-ins to whatever the modules of the package `tests` import from Captum."""
        original_import = builtins.__import__

        def exchanging_import(
            name: str,
            globals: Any = None,
            locals: Any = None,
            fromlist: Any = (),
            level: int = 0,
        ) -> Any:
            module = original_import(name, globals, locals, fromlist, level)
            importer = (globals or {}).get("__name__", "")
            if not (fromlist and name.startswith("captum") and importer.startswith("tests.")):
                return module
            names = {wanted: getattr(module, wanted) for wanted in fromlist}
            return SimpleNamespace(
                **{
                    wanted: self.stand_ins.get(found, found) if isinstance(found, type) else found
                    for wanted, found in names.items()
                }
            )

        builtins.__import__ = exchanging_import


def _outcome(call: Any) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except Exception as error:
        return None, error


def _own_graph(value: Any) -> Any:
    """The same arguments, cut from a graph that the first of two calls would free."""
    import torch

    if isinstance(value, torch.Tensor) and value.grad_fn is not None:
        return value.detach().clone().requires_grad_()
    if type(value) in (tuple, list):
        return type(value)(_own_graph(item) for item in value)
    if type(value) is dict:
        return {name: _own_graph(item) for name, item in value.items()}
    return value


def _ours(host: type, classes: str) -> type:
    """The class under test: the installed one, or for a check of this check, a made-up one."""
    if classes == "installed":
        import absence_plugins.captum as adapters

        return getattr(adapters, f"Absence{host.__name__}")

    from captum.log import log_usage

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        del kwargs["nontarget"], kwargs["reference"], kwargs["evidence"]
        host.__init__(self, *args, **kwargs)

    @log_usage()
    def attribute(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _one_bit_off(host.attribute(self, *args, **kwargs))

    members: dict[str, Any] = {"__init__": __init__}
    if classes == "broken":
        members["attribute"] = attribute
    return type(f"Absence{host.__name__}", (host,), members)


def _one_bit_off(result: Any) -> Any:
    import torch

    if isinstance(result, tuple):
        return (_one_bit_off(result[0]), *result[1:])
    if isinstance(result, torch.Tensor) and result.is_floating_point():
        return torch.nextafter(result, result + 1)
    return result


class Record:
    """The outcome of every test, written where the parent process reads it."""

    def __init__(self, file: Path, comparison: Comparison | None) -> None:
        self.file, self.comparison = file, comparison
        self.outcomes: dict[str, str] = {}

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = "failed"

    def pytest_runtest_logreport(self, report: Any) -> None:
        if self.outcomes.get(report.nodeid) != "failed" and (report.when == "call" or report.outcome != "passed"):
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        record: dict[str, Any] = {"outcomes": self.outcomes}
        if self.comparison is not None:
            record["calls"] = dict(self.comparison.calls)
            record["differences"] = self.comparison.differences
        self.file.write_text(json.dumps(record))


def pytest_configure(config: Any) -> None:
    comparison = None
    if (classes := os.environ["CAPTUM_SUITE_CLASSES"]) != "captum":
        comparison = Comparison(classes)
        comparison.install()
    config.pluginmanager.register(Record(Path(os.environ["CAPTUM_SUITE_RECORD"]), comparison))


# -------------------------------------------------------------------------------------- the parent


def unpack(sdist: Path, folder: Path) -> None:
    """Put Captum's `tests` into the folder, with today's argument names."""
    with tarfile.open(sdist) as archive:
        members = [m for m in archive.getmembers() if "/tests/" in m.name and m.isfile()]
        for member in members:
            content = archive.extractfile(member)
            if content is None:
                continue
            name = member.name.split("/tests/", 1)[1]
            file = folder / "tests" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_renamed(name, content.read().decode()))
    for name in LEFT_OUT:
        (folder / "tests" / name).unlink()


def _renamed(name: str, text: str) -> str:
    renames = {} if name.startswith(METRICS_FILES) else dict(RENAMES)
    if name in NOISE_TUNNEL_FILES:
        renames |= NOISE_TUNNEL_RENAMES
    for old, new in renames.items():
        text = re.sub(old, new, text)
    return text


def download(folder: Path) -> Path:
    """Fetch the source distribution with the pip of this environment."""
    wanted = ["--no-deps", "--no-binary", "captum", "--no-build-isolation", f"captum=={VERSION}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
    subprocess.run(command, check=True)
    return next(folder.glob("captum-*.tar.gz"))


def run(folder: Path, classes: str, tests: list[str]) -> dict[str, Any]:
    """The record of one run of Captum's tests. Raises SystemExit where it did not come to its end."""
    record = folder / f"{classes}.json"
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "CAPTUM_SUITE_CLASSES": classes,
        "CAPTUM_SUITE_RECORD": str(record),
        "OMP_NUM_THREADS": "1",  # tiny models
    }
    command = [sys.executable, "-m", "pytest", *tests, "-p", "captum_suite", "-q"]
    command += ["-p", "no:cacheprovider", "-W", "ignore", "--tb=short", "--rootdir", str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not record.exists():
        sys.exit(f"{(done.stdout + done.stderr)[-5000:]}\npytest ended with {done.returncode} in place of a result")
    return json.loads(record.read_text())  # type: ignore[no-any-return]


def problems(ours: dict[str, Any], plain: dict[str, str]) -> list[str]:
    """What is wrong with the run of our classes, given Captum's outcomes of the tests that failed in it."""
    found = [f"difference: {difference}" for difference in ours["differences"]]
    found += [
        f"{test}: failed with ours, {plain.get(test)} with Captum's"
        for test in _failed(ours["outcomes"])
        if plain.get(test) != "failed"
    ]
    passed, calls = _passed(ours["outcomes"]), sum(ours["calls"].values())
    if passed < TESTS_FLOOR:
        found.append(f"only {passed} tests passed, expected at least {TESTS_FLOOR}")
    if calls < CALLS_FLOOR:
        found.append(f"only {calls} calls compared, expected at least {CALLS_FLOOR}")
    return found


def _failed(outcomes: dict[str, str]) -> list[str]:
    return sorted(test for test, outcome in outcomes.items() if outcome == "failed")


def _passed(outcomes: dict[str, str]) -> int:
    return sum(outcome == "passed" for outcome in outcomes.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", choices=["installed", "plain", "broken"], default="installed")
    parser.add_argument("--sdist", type=Path, help=f"captum-{VERSION}.tar.gz, if already there")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(options.sdist or download(folder), folder)
        ours = run(folder, options.classes, ["tests"])
        failed = _failed(ours["outcomes"])
        plain = run(folder, "captum", failed)["outcomes"] if failed else {}

    found = problems(ours, plain)
    print(f"Captum {VERSION}'s tests on today's Captum, with our classes: {_passed(ours['outcomes'])} pass")
    print(f"{len(failed)} fail, as with Captum alone (its interface or expected values have changed since):")
    print(*(f"  {test}" for test in failed), sep="\n")
    calls = ours["calls"]
    print(f"{sum(calls.values())} calls of {len(calls)} classes compared bit for bit:")
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(calls.items())))
    print(*found[:40], sep="\n")
    verdict = f"{len(found)} problems" if found else "no difference"
    print(f"{verdict}, {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
