"""The metric of Quantus gives the scores of `absence_scores`. Quantus comes with the dev extra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from faithfulness_nets import Weighted, images, noise

from absence_plugins import ReferenceSet
from absence_plugins.methods.faithfulness import absence_scores

pytestmark = pytest.mark.slow
quantus = pytest.importorskip("quantus", exc_type=ImportError)
pytestmark = pytest.mark.needs("quantus")


def metric_of(*args: Any, **options: Any) -> Any:
    from absence_plugins.methods.faithfulness.quantus import AbsenceFaithfulness

    return AbsenceFaithfulness(*args, **options)


@pytest.mark.parametrize("view", ["nontarget", "reference"])
def test_the_same_scores(view: str) -> None:
    net, x, signed = Weighted().eval(), images(6), noise(0)[:6]
    references = ReferenceSet(images(20, seed=4), torch.arange(20) % 2, k=2) if view == "reference" else None
    metric = metric_of(view, references, steps=8)
    units = np.zeros(6, dtype=int)
    found = metric(net, x.numpy(), units, signed.numpy())
    expected = absence_scores(
        net, x, torch.zeros(6, dtype=torch.long), signed, view=view, reference=references, steps=8
    )  # type: ignore[arg-type]
    assert found == expected.per_sample.tolist()
    assert metric.all_evaluation_scores == found


def test_it_works_in_quantus_evaluate_with_an_explaining_function() -> None:
    net, x = Weighted().eval(), images(4)
    metric = metric_of(steps=8, return_aggregate=True)

    def explain(model: torch.nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
        return (model.w.detach().numpy() * inputs).astype(np.float32)

    scores = quantus.evaluate(
        {"absence": metric},
        xai_methods={"effect": explain},
        model=net,
        x_batch=x.numpy(),
        y_batch=np.zeros(4, dtype=int),
        explain_func_kwargs={},
    )
    assert scores["effect"]["absence"] == pytest.approx([1.0], abs=0.02)
    assert isinstance(metric, quantus.Metric)


def test_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="explain the logits"):
        metric_of()(Weighted().eval(), images(2).numpy(), np.zeros(2, dtype=int), noise(0)[:2].numpy(), softmax=True)
