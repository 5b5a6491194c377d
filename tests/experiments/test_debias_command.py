"""The debias experiment: what it writes, that it is repeatable, and (slow) what it finds over five seeds."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from absence_plugins.experiments.debias import digits as debias
from absence_plugins.experiments.debias.digits import (
    SETS,
    DebiasResult,
    Scores,
    Setting,
    compare,
    run_debias,
    small_net,
    train,
)
from absence_plugins.experiments.debias.page import class_chart, signed_map
from absence_plugins.experiments.registry import find_experiment, run_experiment

TINY = Setting(epochs=2, weights=(10.0, 100.0))


def test_page_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debias, "SEEDS", 2)
    monkeypatch.setattr(debias, "Setting", partial(Setting, epochs=1, weights=(10.0,), modes=("both",)))
    random = torch.get_rng_state()
    assert find_experiment("debias") is run_debias
    page = run_experiment("debias", tmp_path / "out", seed=3, progress=False).read_text(encoding="utf-8")
    assert torch.equal(torch.get_rng_state(), random)
    assert (tmp_path / "out" / "accuracy.png").is_file()
    for words in ("Trained without the tag", "No prior", "Prior: both, weight 10", "holds logit 8 down", "--seed 3"):
        assert words in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    means = results["means"]
    for name in SETS:  # all of them can be read on the page, without the figures
        words = (f"{short} {means[mode][name]:.3f}" for mode, short in (("no artefact", "without tag"), ("none", "no prior"), ("both", "both")))  # fmt: skip
        assert ", ".join(words) in page
        for mode in means:
            accuracies = [[run["accuracy"][name][k] for run in results["runs"] if run["mode"] == mode] for k in (0, 1)]
            assert "({}, {})".format(*(f"{sum(one) / 2:.3f}" for one in accuracies)) in page
    assert len(list((tmp_path / "out" / "figures").glob("row-01-*.png"))) == 3
    assert results["weights"] == {"no artefact": 0.0, "none": 0.0, "both": 10.0}
    assert [run["seed"] for run in results["runs"]] == [3, 4] * 3
    assert set(results["means"]["both"]) == {*SETS, "inside", "target", "nontarget"}


def test_bars_are_as_long_as_the_accuracies() -> None:
    accuracy = {"biased": (1.0, 1.0), "inverted": (0.8, 0.2), "unbiased": (0.5, 1.0)}
    runs = tuple(Scores(accuracy, 0.0, 0.0, mode, 0.0, 0, 1.0) for mode in ("no artefact", "none"))
    result = DebiasResult(Setting(), {"no artefact": 0.0, "none": 0.0}, runs)
    lengths = {}
    for name in SETS:
        chart = class_chart(result, name)
        assert chart.shape[0] == 3
        assert 0 <= float(chart.min()) <= float(chart.max()) <= 1
        for k, color in enumerate(((42, 111, 198), (217, 160, 54))):
            found = (chart * 255 - torch.tensor(color)[:, None, None]).abs().amax(0) < 2
            lengths[name, k] = int(found.sum(1).max())
    for (name, k), length in lengths.items():
        assert length == pytest.approx(accuracy[name][k] * lengths["biased", 0], abs=3)


def test_the_weight_is_the_best_on_images_that_are_not_tested_on() -> None:
    setting = Setting(epochs=2, weights=(10.0, 100.0), modes=("presence",))
    result = compare(setting, range(2), progress=False)
    by_weight = {
        weight: sum(run.chosen_by for run in result.runs if (run.mode, run.weight) == ("presence", weight))
        for weight in setting.weights
    }
    assert by_weight[result.weights["presence"]] == max(by_weight.values())
    assert len(result.runs) == 2 * 4
    assert len(result.of("presence")) == 2
    first = result.of("none")[0]
    assert first.inside == (first.target + first.nontarget) / 2
    assert "presence" in result.table()
    assert f"{result.mean('none', 'inverted'):.3f}" in repr(result)


def test_parts_are_disjoint_and_biased_as_they_are_named() -> None:
    data = debias._data(TINY, 0, with_artefact=True)
    images, labels, masks = data.train
    assert torch.equal(masks.flatten(1).any(1), labels == 0)
    for name in SETS:
        _, truth, where = data.tests[name]
        carries = {"biased": truth == 0, "inverted": truth == 1, "unbiased": torch.zeros_like(truth, dtype=torch.bool)}
        assert torch.equal(where.flatten(1).any(1), carries[name])
    clean = debias._data(TINY, 0, with_artefact=False).train[0]
    parts = [clean, data.tests["choice"][0], data.tests["unbiased"][0]]
    rows = [row for part in parts for row in part.flatten(1).tolist()]
    assert len({tuple(row) for row in rows}) == len(rows)
    assert torch.equal((images != clean).any(1, keepdim=True) & ~masks, torch.zeros_like(masks))


def test_a_training_is_repeatable() -> None:
    data = debias._data(TINY, 1, with_artefact=True)
    one, two = (train(TINY, *data.train, mode="both", weight=10.0, seed=1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in one.parameters())


def test_maps_add_up_to_the_logit_of_a_net_without_biases() -> None:
    model = small_net(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    image = debias._data(TINY, 0, with_artefact=True).tests["biased"][0][0]
    assert float(signed_map(model, image, 1).sum()) == pytest.approx(float(model(image[None])[0, 1].detach()), abs=1e-5)


@pytest.mark.slow
def test_over_five_seeds_both_beats_presence_and_presence_beats_none() -> None:
    setting = Setting(weights=(1000.0, 10_000.0), modes=("presence", "both"))  # the two best of the full grid
    result = compare(setting, range(5), progress=False)
    none, presence, both = (result.mean(mode, "inverted") for mode in ("none", "presence", "both"))
    assert both > presence > none
    assert both >= none + 0.15
    assert both >= presence + 0.03
    assert result.mean("both", "unbiased") >= result.mean("no artefact", "unbiased") - 0.02
    assert result.mean("both", "inside") <= result.mean("none", "inside") / 10
