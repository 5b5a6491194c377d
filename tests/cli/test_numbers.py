"""Every number of every command, and those of the functions behind them: in range, or refused with its name at once."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import nn

import absence_plugins
from absence_plugins.cli import app
from absence_plugins.core.checks import check_distinct, check_integer, check_number
from absence_plugins.core.references import ReferenceSet
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.invert import label_units
from absence_plugins.methods.patches import find_extreme_patches

NEEDED = {
    "explain": ["a.png"], "directions": ["photos", "--layer", "x"], "check": ["digits"], "bench": [], "demo": [],
    "experiment": ["directions-synthetic"], "patches": [], "label": [], "report": [],
}  # fmt: skip
# What an option means where it is not refused. An experiment that does not take an option says so.
MEANS = {
    ("label", "holdout", "0"): "nothing is held out", ("label", "min-fraction", "0"): "no least share",
    ("report", "directions", "0"): "none are fitted", ("report", "scored", "0"): "no scores",
    ("check", "budget", "0"): "only what must be tried", ("check", "budget", "1e300"): "all are tried",
}  # fmt: skip
FREE = ("seed", "workers")  # 0 is a value as any other


def numeric_options() -> Iterator[tuple[str, str, type]]:
    for command in app.registered_commands:
        assert command.callback is not None
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            parts = [hint, *typing.get_args(hint)]
            kinds = {kind for part in parts for kind in (part, *typing.get_args(part)) if kind in (int, float)}
            if kinds:
                yield command.callback.__name__, name.replace("_", "-"), kinds.pop()


OPTIONS = list(numeric_options())


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, str]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    (tmp_path / "photos").mkdir()
    command: Any = typer.main.get_command(app)
    for one in command.commands.values():
        one.callback = lambda **_options: None  # what a command does is not the question here

    def run(*words: str) -> tuple[Any, str]:
        written = io.StringIO()
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            try:
                command(list(words), prog_name="absence-plugins")
            except SystemExit as end:
                return end.code, " ".join(written.getvalue().replace("\u2502", " ").split())
        raise AssertionError(words)

    return run


def test_the_options_are_found() -> None:
    assert len(OPTIONS) >= 55
    assert {name for name, _, _ in OPTIONS} == set(NEEDED)
    assert ("label", "holdout", float) in OPTIONS


@pytest.mark.parametrize("name", NEEDED)
def test_numbers_of_a_command(name: str, call: Callable[..., tuple[Any, str]]) -> None:
    for command, option, kind in OPTIONS:
        if command != name:
            continue
        wrong = ["-1", "x", "", "nan", "1e400", "1" * 30 if kind is int else "-1e300"]
        wrong += ["2.5", "True"] if kind is int else []
        wrong += [] if option in FREE else ["0"]
        for value in wrong:
            more = ["--photos"] if option == "findings" else []
            code, text = call(command, *NEEDED[command], *more, f"--{option}", value)
            if (command, option, value) in MEANS:
                assert code == 0, (option, value, text)
            else:
                assert code == 2, (option, value, text)
                assert f"--{option}" in text, (option, value, text)
                assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("patches --units 1,1", "--units names 1 twice"),
        ("patches --units 0-3,2", "--units names 2 twice"),
        ("report --units 5-3", "5-3 counts down; write 3-5"),
        ("report --units 0-99999999999", "must be below 10,000,000"),
        ("report --units 1,,2", "must be unit numbers"),
        ("explain a.png --std 0.2,0,0.2", "--std 0.0 must be above 0"),
        ("explain a.png --mean nan", "--mean nan must be a finite number"),
        ("check digits --std inf", "--std inf must be a finite number"),
        ("experiment debias --data photos --strengths 1,-1", "--strengths -1.0 must be at least 0"),
        ("label --min-fraction 0.6 --max-fraction 0.5", "--min-fraction 0.6 is above --max-fraction 0.5"),
        ("label --holdout 1", "leaves no images to search"),
        ("patches --channels 0", "--channels '0' must be auto"),
    ],
)
def test_numbers_within_a_text(words: str, said: str, call: Callable[..., tuple[Any, str]]) -> None:
    code, text = call(*words.split())
    assert code == 2
    assert said in text


BAD: dict[str, Any] = {
    "zero": 0, "negative": -1, "fraction": 2.5, "boolean": True, "nan": float("nan"), "infinite": float("inf"), "text": "3",
    "empty": [], "two": [1, 1], "huge": 10**30, "tensor": torch.ones(2),
}  # fmt: skip


def test_the_checks() -> None:
    for bad in BAD.values():
        with pytest.raises(ValueError, match=r"^k"):
            check_integer("k", bad)
        if bad is not BAD["huge"]:
            with pytest.raises(ValueError, match=r"^q"):
                check_number("q", bad, most=1, above=0)
    assert check_integer("k", torch.tensor(3)) == 3
    assert check_number("q", torch.tensor(0.5), 0, 1) == 0.5
    with pytest.raises(ValueError, match=r"^.{,130}$"):
        check_integer("k", [1] * 999)
    for units in ([], [1, 1], [-1], [True], [1.0], ["1"], [float("nan")]):
        with pytest.raises(ValueError, match=r"^units"):
            check_distinct("units", units)


NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SCAN = {"k": 2, "size": 6, "stride": 6, "progress": False}
CONCEPTS = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) < 0.5


def scan(**options: Any) -> Any:
    return find_extreme_patches(NET, "0", IMAGES, **(SCAN | options))


def label(**options: Any) -> Any:
    return label_units(CONCEPTS[:, 0].float(), CONCEPTS, ["a", "b"], progress=False, **options)


def score(**options: Any) -> Any:
    return absence_scores(NET, IMAGES[:2], 0, lambda x, _target: x, progress=False, **options)


def insert(**options: Any) -> Any:
    return insertion_test(NET, "0", IMAGES, scan(), **({"images_per_unit": 4, "progress": False} | options))


def fit(**options: Any) -> Any:
    return DirectionPairs(**({"n_directions": 4} | options))


def refer(**options: Any) -> Any:
    return ReferenceSet(IMAGES, torch.arange(8) % 2, **options)


WHOLE = ("zero", "negative", "fraction", "boolean", "nan", "text", "huge")
SEED, REAL = (
    ("negative", "fraction", "boolean", "nan", "text", "huge"),
    ("negative", "boolean", "nan", "infinite", "text"),
)
ARGUMENTS: list[tuple[Callable[..., Any], dict[str, tuple[str, ...]]]] = [
    (scan, {"k": WHOLE, "size": WHOLE, "stride": WHOLE, "batch_size": WHOLE, "seed": SEED, "workers": SEED, "save_every": REAL,
            "units": ("empty", "two")}),
    (insert, {"images_per_unit": WHOLE, "batch_size": WHOLE, "seed": SEED, "split_seed": SEED, "workers": SEED,
              "alpha": REAL, "save_every": REAL}),
    (label, {"length": WHOLE, "beam": WHOLE, "top": WHOLE, "seed": SEED, "min_fraction": REAL, "max_fraction": REAL, "holdout": REAL}),
    (score, {"steps": WHOLE, "draws": WHOLE, "batch_size": WHOLE, "seed": SEED, "cell": WHOLE}),
    (fit, {"n_directions": WHOLE, "starts": WHOLE, "steps": WHOLE, "batch_size": WHOLE, "seed": SEED}),
    (refer, {"k": WHOLE, "seed": SEED}),
]  # fmt: skip
CASES = [(function, name, bad) for function, names in ARGUMENTS for name, kinds in names.items() for bad in kinds]


@pytest.mark.parametrize(("function", "name", "bad"), CASES, ids=[f"{f.__name__}-{n}-{b}" for f, n, b in CASES])
def test_numbers_of_functions(function: Callable[..., Any], name: str, bad: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        function(**{name: BAD[bad]})


def optional_numbers(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    said = {one.arg: ast.unparse(one.annotation) for one in every if one.annotation is not None}
    return {
        name for name, kind in said.items() if "None" in kind and {"int", "float"} & {*kind.replace("|", " ").split()}
    }


def test_no_number_is_replaced_because_it_is_0() -> None:
    """``size or 224`` takes 0 for "not given"."""
    found = []
    for path in sorted(Path(absence_plugins.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not re.search(r": (int|float) \| None", text):
            continue
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            names = optional_numbers(function)
            for node in ast.walk(function):
                asked: list[ast.expr] = []
                if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
                    asked = node.values[:-1]
                elif isinstance(node, (ast.IfExp, ast.If)):
                    asked = [node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test]
                if any(isinstance(one, ast.Name) and one.id in names for one in asked):
                    found.append(f"{path.name}:{node.lineno} {ast.unparse(node)[:80]}")
    assert found == []
