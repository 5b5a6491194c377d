"""What has no exact relevance of differences is refused: what was met, in which module, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from absence_plugins.relevance import RelevanceError, relevance


class Block(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(nn.Module):
    """A refused block between two linear layers."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.a, self.block, self.b = nn.Linear(4, 4), block, nn.Linear(4, 2)
        generator = torch.Generator().manual_seed(0)
        for parameter in (*self.a.parameters(), *self.b.parameters()):
            parameter.data.normal_(generator=generator)
        self.to(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.block(self.a(x)))


X, R = torch.tensor([[[1.0, -2.0, 3.0, 0.5]], [[-1.0, 1.0, 0.3, 2.0]]], dtype=torch.float64)


class Foreign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return torch.tanh(x)


@torch.jit.script
def scripted_mask(x: Tensor) -> Tensor:
    return x * (x > 0).to(x.dtype)


def branch(x: Tensor) -> Tensor:
    return x.relu() if bool(x[0, 2] > 0) else x.tanh()


def gathered(x: Tensor) -> Tensor:
    return x.gather(1, x.argmax(1, keepdim=True)).expand(-1, 4)


def overwritten_mask(x: Tensor) -> Tensor:
    mask = torch.zeros_like(x)
    mask[x > 0] = 1
    return x * mask


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sort": (lambda x: x.sort(1).values, "sort in module 'block' .* use max or mean"),
    "topk": (lambda x: x.topk(4).values, "topk in module 'block' .* use max or mean"),
    "cumprod": (lambda x: x.cumprod(1), "cumprod in module 'block' .* exp"),
    "no rule": (lambda x: torch.renorm(x, 2, 0, 1.0), "renorm in module 'block' .* @secant"),
    "moving grid": (
        lambda x: F.grid_sample(x.reshape(1, 1, 2, 2), x.reshape(1, 2, 1, 2), align_corners=False).repeat(1, 1, 1, 2)[
            0, 0
        ],
        "grid_sampler in module 'block' .* make the grid constant",
    ),
    "mask by values": (lambda x: x * (x > 0), "mul in module 'block' .* Before it the model runs gt in module 'block'"),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), "where in module 'block' takes a value .* gt"),
    "masked fill": (lambda x: x.masked_fill(x < 0, 0.0), "masked_fill in module 'block' takes a value .* lt"),
    "written mask": (overwritten_mask, "mul in module 'block' takes a value that depends on the input"),
    "detach": (lambda x: x + x.detach(), "add in module 'block' .* detach in module 'block'"),
    "data": (lambda x: x * x.data, "mul in module 'block' takes a value that depends on the input"),
    "item": (lambda x: x * x.max().item(), "mul in module 'block' .* item in module 'block'"),
    "argmax": (gathered, "gather in module 'block' .* argmax in module 'block'"),
    "no grad": (lambda x: x + torch.no_grad()(torch.exp)(x), "add in module 'block' takes a value"),
    "branch": (branch, "does not run the same operations .* x runs relu in module 'block' where r runs tanh"),
    "custom function": (Foreign.apply, "the graph holds ForeignBackward, .* custom autograd.Function"),
    "TorchScript": (scripted, "the graph holds TanhBackward0, .* TorchScript"),
    "TorchScript mask": (scripted_mask, "the relevance sums to another value than u.* not seen as torch operations"),
    "vmap": (lambda x: torch.vmap(torch.tanh)(x), "the graph holds TanhBackward0, .* torch.func"),
    "autocast": (
        lambda x: torch.autocast("cpu", torch.bfloat16)(torch.tanh)(x),
        "tanh in module 'block' .* without autocast",
    ),
    "loss": (
        lambda x: F.cross_entropy(x, torch.tensor([1]), reduction="none").expand(1, 4),
        "cross_entropy_loss in module 'block' .* explain the logits",
    ),
    "out=": (lambda x: torch.add(x, x, out=torch.empty_like(x)), "add in module 'block' .* writes to out="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_place_and_remedy(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(RelevanceError, match=message):
        relevance(Net(Block(function)).eval(), X, R, 0)


TRAINING: dict[str, tuple[nn.Module, str]] = {
    "dropout": (nn.Dropout(0.5), "dropout in module 'block' .* call model.eval()"),
    "batch norm": (nn.BatchNorm1d(4, dtype=torch.float64), r"block \(BatchNorm1d\) is in .* call model\.eval\(\)"),
    "rrelu": (nn.RReLU(), "rrelu in module 'block' .* call model.eval()"),
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_mode_is_refused(name: str) -> None:
    block, message = TRAINING[name]
    model = Net(block).train()
    with pytest.raises(RelevanceError, match=message):
        relevance(model, X.repeat(2, 1), R.repeat(2, 1), 0)
    assert model.training
    relevance(model.eval(), X, R, 0)


def test_dropout_that_drops_nothing_is_fine() -> None:
    relevance(Net(nn.Dropout(0.0)).train(), X, R, 0)


def test_batch_norm_without_running_statistics() -> None:
    block = nn.BatchNorm1d(4, dtype=torch.float64, track_running_stats=False)
    with pytest.raises(RelevanceError, match="keep running statistics"):
        relevance(Net(block).eval(), X.repeat(2, 1), R.repeat(2, 1), 0)


def test_an_output_that_does_not_depend_on_the_input() -> None:
    for function in (lambda x: x.detach(), torch.no_grad()(lambda x: x.exp())):
        with pytest.raises(RelevanceError, match="does not depend on the input"):
            relevance(Net(Block(function)).eval(), X, R, 0)


def test_bad_arguments() -> None:
    model = Net(nn.ReLU()).eval()
    for output, message in (
        (None, "say which with output="),
        (7, "does not exist"),
        ([0, 1], "names 2 indices for 1 samples"),
        ((0, 1), "must name one value"),
        (torch.ones(3), "do not fit outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            relevance(model, X, R, output)
    with pytest.raises(ValueError, match=r"reference of shape \(1, 3\) does not fit"):
        relevance(model, X, R[:, :3], 0)
    with pytest.raises(ValueError, match="rule='gama' is not known"):
        relevance(model, X, R, 0, rule="gama")
    with pytest.raises(ValueError, match="is no module of the model"):
        relevance(model, X, R, 0, layers=["c"])
    with pytest.raises(TypeError, match="must be a tensor, a tuple or a dictionary"):
        relevance(model, 3, R, 0)
    with pytest.raises(TypeError, match="must return a tensor"):
        relevance(model, X, R, lambda out: 3)
    with pytest.raises(ValueError, match="cannot be told which are the scores"):
        relevance(lambda x: (model(x), x), X, R, 0)


def test_packed_sequences() -> None:
    model = nn.LSTM(3, 4, batch_first=True).double()

    def packed(x: Tensor) -> Tensor:
        sequences = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
        return model(sequences)[1][0][-1]  # type: ignore[no-any-return]

    x = torch.rand(2, 5, 3, dtype=torch.float64)
    with pytest.raises(RelevanceError, match=r"_pack_padded_sequence .* pass padded sequences"):
        relevance(packed, x, 0 * x, 0)


def test_a_layer_that_runs_twice() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).to(torch.float64)
    twice = Block(lambda x: model[2](model[0](model[0](x))))
    twice.layer = model[0]
    with pytest.raises(ValueError, match="layer 'layer' runs 2 times"):
        relevance(twice, X, R, 0, layers=["layer"])


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_parts_run_without_checkpoints(use_reentrant: bool) -> None:
    saving = Net(Block(lambda x: checkpoint(torch.tanh, x, use_reentrant=use_reentrant)))
    plain = Net(Block(torch.tanh))
    plain.load_state_dict(saving.state_dict())
    found, expected = (relevance(net, X, R, 0).attribution for net in (saving, plain))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("x", "reference", "message"),
    [
        (torch.rand(0, 2), torch.zeros(1, 2), r"the input is empty: its shape is \(0, 2\)"),
        (torch.rand(1, 2), torch.zeros(0, 2), r"the reference is empty: its shape is \(0, 2\)"),
        (torch.tensor([[0.0, torch.nan]]), torch.zeros(1, 2), r"the input holds NaN, first at \(0, 1\)"),
        (torch.rand(1, 2), torch.full((1, 2), torch.nan), r"the reference holds NaN, first at \(0, 0\)"),
        (torch.rand(2, 2), torch.zeros(3, 2), r"a reference of shape \(3, 2\) does not fit an input of shape \(2, 2\)"),
        ((torch.rand(1, 2), torch.rand(1, 3)), (torch.zeros(1, 2),), "2 inputs need as many references, got 1"),
        (torch.rand(1, 2), [], "the list of references is empty"),
    ],
)
def test_inputs_and_references_that_do_not_fit(x: Any, reference: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relevance(nn.Linear(2, 2), x, reference, 1)
