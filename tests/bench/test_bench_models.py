"""``bench models``: the matrix by hand and on small models, its files, and that a stopped run goes on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from torch import Tensor, nn
from typer.testing import CliRunner

from absence_plugins.bench import models as bench
from absence_plugins.bench.model_methods import METHODS
from absence_plugins.bench.models import MARK, run_models_bench, score_model
from absence_plugins.bench.models_result import ModelScore, ModelsResult
from absence_plugins.bench.pages import replaced
from absence_plugins.bench.zoo import TRANSFORMERS, ZOO, Entry, build, installed
from absence_plugins.cli import app
from absence_plugins.core import AbsenceWarning
from absence_plugins.relevance import relevance

ROOT = Path(__file__).resolve().parents[2]
SMALL = Entry("torchvision", "squeezenet1_1", 32)


def of(scores: list[ModelScore] | tuple[ModelScore, ...], method: str) -> ModelScore:
    return next(one for one in scores if one.method == method)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelsResult, Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    page = folder / "page.md"
    page.write_text("# Mine\n\n<!-- bench models: begin -->\nformer\n<!-- bench models: end -->\n\nmore\n")
    state = torch.random.get_rng_state()
    result = run_models_bench(entries=[SMALL], progress=False, out=folder / "out", into=[page])
    assert torch.equal(torch.random.get_rng_state(), state)
    return result, folder / "out", page


def test_relevance_is_right_and_the_others_are_not(written: tuple[ModelsResult, Path, Path]) -> None:
    result, _, _ = written
    assert [one.method for one in result.scores] == list(METHODS)
    for rule in ("epsilon", "lower_gamma"):
        own = of(result.scores, f"relevance {rule}")
        assert own.is_conserved
        assert own.asymmetry == 0
    assert not of(result.scores, "DeepLift (Captum)").is_conserved
    assert of(result.scores, "LRP (Captum)").asymmetry is None
    assert result.ok


def test_table_page_figure_and_json(written: tuple[ModelsResult, Path, Path]) -> None:
    result, out, page = written
    names = {"models.json", "models.md", "models.png", "models-torchvision-squeezenet1_1.json"}
    assert {path.name for path in out.iterdir()} == names
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("<!-- bench models: end -->\n\nmore\n")
    assert "former" not in text
    assert "| torchvision | squeezenet1_1 |" in text
    assert replaced(text, MARK, result.markdown) == text  # once more changes nothing
    again = ModelsResult.from_dict(json.loads((out / "models.json").read_text()))
    assert again.markdown() == result.markdown()
    assert result.table() in repr(result)
    assert "does not run" in result.table()


def test_a_finished_model_is_not_asked_again(
    written: tuple[ModelsResult, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out, _ = written
    asked: list[str] = []

    def score(entry: Entry) -> list[ModelScore]:
        asked.append(entry.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "score_model", score)
    with pytest.raises(KeyboardInterrupt):
        run_models_bench(entries=[SMALL, Entry("torchvision", "alexnet", 63)], progress=False, out=out)
    assert asked == ["alexnet"]
    assert run_models_bench(entries=[SMALL], progress=False, out=out).scores == result.scores


class Twice(nn.Module):
    """u = 2 x0 + 1 as logit 1: its maps are known."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], 2 * x[:, :1] + 1], 1)


def test_errors_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    x, r = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 5.0]])
    maps: dict[str, Any] = {
        "exact": lambda model, x, r: (x - r) * torch.tensor([2.0, 0.0]),
        "half": lambda model, x, r: x - r,
        "crooked": lambda model, x, r: torch.tensor([[(model(x) - model(r))[0, 1], 0.0]]) + torch.tensor([[-1.0, 1.0]]),
        "raises": lambda model, x, r: 1 / 0,
        "infinite": lambda model, x, r: x / 0,
    }
    chosen = {name: bench.ModelMethod(call) for name, call in maps.items()}
    chosen["of u(x)"] = bench.ModelMethod(lambda model, x, r: torch.tensor([[7.0, 0.0]]), has_reference=False)
    monkeypatch.setattr(bench, "METHODS", chosen)
    monkeypatch.setattr(bench, "build", lambda entry: (Twice(), x, r))
    scores = score_model(SMALL)
    cells = {one.method: one.cell() for one in scores}
    assert cells == {
        "exact": "0", "half": ".50!", "crooked": "0~", "raises": "-", "infinite": "NaN!", "of u(x)": "0",
    }  # fmt: skip
    assert of(scores, "raises").note == "ZeroDivisionError: division by zero"
    assert of(scores, "crooked").asymmetry == pytest.approx(2 / 3)
    result = ModelsResult(tuple(scores), {})
    assert [row[1:] for row in result.counts()] == [
        ["1", "1", "1", "not ours"], ["1", "0", "1", "not ours"], ["1", "1", "0", "not ours"],
        ["0", "0", "no reference", "not ours"], ["1", "0", "no reference", "not ours"],
        ["1", "1", "no reference", "not ours"],
    ]  # fmt: skip


def test_ours_may_not_be_wrong_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    x, r = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 5.0]])

    def warned(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
        warnings.warn("the sum is off", AbsenceWarning, stacklevel=2)
        return x - r

    def rejected(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
        return relevance(model, x, r[:0], 1).attribution

    def complete(call: Any) -> bench.ModelMethod:
        return bench.ModelMethod(call, is_ours=True)

    chosen = {
        "warned": complete(warned),
        "rejected": complete(rejected),
        "silent": complete(lambda model, x, r: x - r),
        "crash": complete(lambda model, x, r: torch.ones(2) @ torch.ones(3)),
        "gradient": bench.ModelMethod(lambda model, x, r: x, False, is_ours=True, is_complete=False),
    }
    monkeypatch.setattr(bench, "METHODS", chosen)
    monkeypatch.setattr(bench, "build", lambda entry: (Twice(), x, r))
    scores = score_model(SMALL)
    assert {one.method: one.cell() for one in scores} == {
        "warned": ".50!w", "rejected": "-w", "silent": ".50!", "crash": "-", "gradient": "ok",
    }  # fmt: skip
    faults = {one.method: one.fault for one in scores if one.fault}
    assert faults == {"silent": "silently wrong", "crash": "crash"}
    result = ModelsResult(tuple(scores), {})
    assert not result.ok
    assert "FAULT: silent, silently wrong [squeezenet1_1]" in result.table()
    assert ModelsResult(tuple(one for one in scores if not one.fault), {}).ok


@pytest.mark.parametrize(("offset", "dtype"), [(0.0, torch.float32), (1e5, torch.float64)])
def test_a_difference_in_the_last_places_is_measured_in_float64(
    offset: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    class Offset(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + offset

    def attribute(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
        seen.append(x.dtype)
        return (x - r) * torch.tensor([0, 1])

    monkeypatch.setattr(bench, "METHODS", {"exact": bench.ModelMethod(attribute)})
    monkeypatch.setattr(
        bench, "build", lambda entry: (Offset(), torch.tensor([[0.0, 0.3]]), torch.tensor([[0.0, 0.1]]))
    )
    (score,) = score_model(SMALL)
    assert score.is_conserved
    assert set(seen) == {dtype}


def test_the_verdict_is_that_of_relevance() -> None:
    good = ModelScore("timm", "a", "relevance epsilon", True, 1e-6, 0.0, "")
    assert ModelsResult((good, ModelScore("timm", "a", "LRP", False, None, None, "why")), {}).ok
    for error, asymmetry in ((0.02, 0.0), (1e-6, 0.1), (None, None)):
        assert not ModelsResult((good, ModelScore("timm", "b", "relevance epsilon", True, error, asymmetry, "")), {}).ok


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_of_transformers_take_one_tensor(name: str) -> None:
    entry = next(one for one in ZOO if one.name == name)
    model, x, r = build(entry)
    assert x.shape == r.shape
    assert model(x).shape == (1, 10)
    assert not torch.equal(model(x), model(r))


def test_the_zoo() -> None:
    counts = {source: sum(one.source == source for one in ZOO) for source in ("torchvision", "timm", "transformers")}
    assert counts == {"torchvision": 20, "timm": 15, "transformers": 4}
    assert not installed([Entry("no_such_package", "a", 32)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "models", "--quick", "--into", "nowhere.md"], "into file nowhere.md does not exist"),
        (
            ["bench", "relevance", "--quick", "--into", "page.md"],
            "--into belongs to bench planted, models, references, directions and kinds",
        ),
    ],
)
def test_wrong_options_are_named(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_quick_is_a_model_of_each_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def score(entry: Entry) -> list[ModelScore]:
        asked.append(entry.source)
        return [ModelScore(entry.source, entry.name, "relevance epsilon", True, 1e-6, 0.0, "")]

    monkeypatch.setattr(bench, "score_model", score)
    assert CliRunner().invoke(app, ["bench", "models", "--quick"]).exit_code == 0
    assert asked == list(dict.fromkeys(one.source for one in installed(ZOO)))


# -- the table of the page --------------------------------------------------------------------------------------------


def test_the_page_holds_the_table_of_the_command() -> None:
    published = ModelsResult.from_dict(json.loads((ROOT / "docs" / "_static" / "models.json").read_text()))
    text = (ROOT / "docs" / "models-benchmark.md").read_text(encoding="utf-8")
    assert replaced(text, MARK, published.markdown) == text
    assert published.markdown() in text
    assert published.ok
    assert published.models == [(one.source, one.name) for one in ZOO]
    assert published.methods == list(METHODS)


def test_ranks_take_the_models_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = [Entry("torchvision", f"net{number}", 32) for number in range(5)]
    made: list[str] = []

    def score(entry: Entry) -> list[ModelScore]:
        made.append(entry.name)
        return [ModelScore(entry.source, entry.name, "relevance epsilon", True, 0.0, 0.0, "", is_ours=True)]

    monkeypatch.setattr(bench, "score_model", score)
    monkeypatch.setattr(bench, "fingerprint_sources", lambda source: source)

    def work() -> Any:
        made.clear()
        return run_models_bench(entries=entries, progress=False, out=tmp_path / "out"), list(made)

    expected = run_models_bench(entries=entries, progress=False)
    found = run_ranks(2, work)
    assert [own for _, own in found] == [["net0", "net2", "net4"], ["net1", "net3"]]
    assert all(result.scores == expected.scores for result, _ in found)
    assert json.loads((tmp_path / "out" / "models.json").read_text())["scores"] == expected.to_dict()["scores"]
    (tmp_path / "out" / "models-torchvision-net3.json").unlink()
    assert [own for _, own in run_ranks(3, work)] == [["net3"], [], []]
