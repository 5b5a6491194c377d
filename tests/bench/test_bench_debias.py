"""The bench of the attribution prior: the same gradients by one call and by two, nothing left behind, the command."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins.bench import run_debias_bench
from absence_plugins.bench.debias import BOTH_LIMIT, TWO_CALLS_LIMIT, debias_works
from absence_plugins.cli import app

CPU = torch.device("cpu")


@pytest.mark.slow
def test_every_row_of_both_networks() -> None:
    before = torch.get_rng_state()
    result = run_debias_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    names = ("presence", "both", "both, own forward", "both, all carry", "both, two calls")
    assert [one.name for one in result.measurements] == [f"{net} {name}: time" for net in ("digits", "resnet18") for name in names]  # fmt: skip
    assert [one.limit for one in result.measurements] == [None, BOTH_LIMIT, None, None, TWO_CALLS_LIMIT] * 2
    assert all(one.ok is None and one.ratio > 0 for one in result.measurements)
    assert result.table().splitlines()[0].split()[:2] == ["plain", "prior"]


def test_carriers_alone_give_the_gradients_of_the_whole_batch_with_empty_masks() -> None:
    from torch.nn import functional as F

    from absence_plugins.data import digits_cnn, load_digits
    from absence_plugins.methods.debias import AttributionPrior

    model, x = digits_cnn(), load_digits().test_images[:6]
    y, mask = torch.arange(6), torch.zeros(6, 1, 32, 32, dtype=torch.bool)
    mask[::2, :, 16:] = True
    prior = AttributionPrior(model)
    whole, carriers = prior(x, y, mask), prior(x[::2], y[::2], mask[::2]) / 2
    assert carriers.item() == pytest.approx(whole.item(), rel=1e-5)
    one, two = (torch.autograd.grad(value, model.conv1.weight)[0] for value in (whole, carriers))
    assert F.cosine_similarity(one.flatten(), two.flatten(), 0).item() == pytest.approx(1, abs=1e-5)


def test_no_gradient_stays_and_the_sides_agree() -> None:
    work = debias_works("digits", True, CPU)["both, two calls"]
    assert work.is_same
    assert torch.allclose(work.ours(), work.plain(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_bad_options_and_the_command() -> None:
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        run_debias_bench(rounds=0)
    done = CliRunner().invoke(app, ["bench", "debias", "--quick", "--rounds", "1", "--device", "cpu"])
    assert done.exit_code == 0
    assert "both, two calls" in done.output
