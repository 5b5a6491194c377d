"""Several outputs over one graph of x: the same bits as one question at a time, with fewer forwards."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.choices import choose
from absence_plugins.core.outputs import Logit
from absence_plugins.relevance import relevance
from absence_plugins.relevance.shared_graph import SharedGraph


def small(*, ends: nn.Module | None = None) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 8, 3, 2), nn.GELU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
        )  # fmt: skip
    return (net if ends is None else nn.Sequential(*net, ends)).eval()


def draw(seed: int, samples: int = 1) -> Tensor:
    return torch.rand(samples, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "lower_gamma", "zplus"])
@pytest.mark.parametrize("samples", [1, 2])
def test_the_bits_are_those_of_one_question_at_a_time(rule: str, samples: int) -> None:
    net, x = small(), draw(1, samples)
    references = [torch.zeros_like(x), draw(2, samples)]
    graph = SharedGraph(net, x, rule=rule)
    targets = [0, 3][:samples] if samples > 1 else 0
    words = (2, "target", "runner_up", "margin", "others", "negated")
    outputs = [Logit(1), *(choose(graph.logits, targets, word) for word in words)]
    for output in outputs:
        for reference in (*references, references):
            ours, alone = graph.explain(reference, output), relevance(net, x, reference, output, rule=rule)
            assert torch.equal(ours.per_reference, alone.per_reference)
            assert torch.equal(ours.attribution, alone.attribution)
            assert torch.equal(ours.output, alone.output)
            assert torch.equal(ours.reference_output, alone.reference_output)


def test_each_image_runs_once() -> None:
    net, x, calls = small(), draw(1), []
    net[0].register_forward_pre_hook(lambda _module, inputs: calls.append(inputs[0].detach()))
    graph = SharedGraph(net, x)
    for index in range(5):
        graph.explain(draw(2), Logit(index))  # another tensor of the same values each time
    assert len(calls) == 2
    graph.explain(draw(3), Logit(0))
    graph.explain(draw(2), Logit(0))
    assert len(calls) == 4


def test_logits_in_front_of_a_softmax_are_explained_and_said_once() -> None:
    net, x = small(ends=nn.Softmax(1)), draw(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AbsenceWarning)
        graph = SharedGraph(net, x)
        found = [graph.explain(draw(2), Logit(index)) for index in (0, 1)]
    assert [str(one.message)[:30] for one in caught] == ["the model ends in a softmax ov"]
    assert torch.equal(found[1].attribution, relevance(small(), x, draw(2), 1).attribution)


def test_a_failing_reference_is_not_taken_for_run() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if float(x.detach().sum()) < 0:
                raise ValueError("too dark")
            return x.flatten(1)[:, :3] * 2

    graph = SharedGraph(Picky(), draw(1))
    first = graph.explain(draw(2), Logit(0))
    with pytest.raises(ValueError, match="too dark"):
        graph.explain(draw(2) - 0.9, Logit(0))
    assert torch.equal(graph.explain(draw(2), Logit(0)).attribution, first.attribution)


def graph_reference_with_another_best(graph: SharedGraph) -> Tensor:
    """An image of another predicted class."""
    own = int(graph.logits.argmax())
    images = (scale * draw(seed) for seed in range(3, 200) for scale in (-9.0, 1.0, 9.0))
    with torch.no_grad():
        return next(image for image in images if int(graph.model(image).argmax()) != own)


def test_a_closed_graph_and_what_is_not_linear_are_refused() -> None:
    graph = SharedGraph(small(), draw(1))
    for function in (lambda logits: logits[:, 0] ** 2, lambda logits: logits[:, 0] + 1, lambda logits: logits.amax(1)):
        bent = choose(graph.logits, 0, "target")
        object.__setattr__(bent, "values", function)
        reference = graph_reference_with_another_best(graph)
        with pytest.raises(ValueError, match="is not linear in the model's scores"):
            graph.explain(reference, bent)
    graph.close()
    with pytest.raises(ValueError, match="the graph is closed"):
        graph.explain(draw(2), Logit(0))
