"""The logits in front of a softmax or sigmoid at the end: found bit for bit, and only there."""

from __future__ import annotations

import gc
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.endings import LastOperation, located_softmaxes
from absence_plugins.core.outputs import Logit, check_logits
from absence_plugins.core.scores import Scores, run_scores


@dataclass
class Found:
    """As Hugging Face returns it."""

    logits: Tensor
    hidden_states: Any = None


class Net(nn.Module):
    """A linear layer [B, 4] -> [B, 3], and something behind it."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.end = nn.Linear(4, 3), end
        self.linear.weight.data = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Any:
        return self.end(self.linear(x))


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
ENDS: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "module": ("softmax", nn.Softmax(1)),
    "module, last axis": ("softmax", nn.Softmax(-1)),
    "log module": ("log_softmax", nn.LogSoftmax(1)),
    "sigmoid module": ("sigmoid", nn.Sigmoid()),
    "function": ("softmax", lambda z: F.softmax(z, dim=1)),
    "function, no axis": ("softmax", lambda z: F.softmax(z)),
    "torch": ("softmax", lambda z: torch.softmax(z, 1)),
    "method": ("softmax", lambda z: z.softmax(dim=-1)),
    "special": ("softmax", lambda z: torch.special.softmax(z, 1)),
    "log function": ("log_softmax", lambda z: F.log_softmax(z, 1)),
    "log method": ("log_softmax", lambda z: z.log_softmax(1)),
    "log special": ("log_softmax", lambda z: torch.special.log_softmax(z, 1)),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "sigmoid method": ("sigmoid", lambda z: z.sigmoid()),
    "sigmoid in place": ("sigmoid", lambda z: z.sigmoid_()),
    "sigmoid to out": ("sigmoid", lambda z: torch.sigmoid(z, out=z)),
    "expit": ("sigmoid", torch.special.expit),
    "dataclass": ("softmax", lambda z: Found(F.softmax(z, 1))),
    "dictionary": ("softmax", lambda z: {"out": F.softmax(z, 1), "aux": z * 2}),
    "tuple": ("softmax", lambda z: (F.softmax(z, 1), None)),
    "wide": ("softmax", lambda z: F.softmax(z, 1).double()),
    "in another type": ("softmax", lambda z: F.softmax(z, 1, dtype=torch.float64)),
    "map": ("softmax", lambda z: nn.Softmax2d()(z[:, :, None, None])[:, :, 0, 0]),
    "squeezed": ("softmax", lambda z: z.unsqueeze(2).softmax(1).squeeze(2)),
    "transposed": ("softmax", lambda z: z.t().softmax(0).t()),
    "viewed": ("sigmoid", lambda z: z.sigmoid().view(len(z), 3, 1)),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension", "ignore:An output with one or more elements")
@pytest.mark.parametrize("name", ENDS)
def test_the_logits_are_those_of_the_model_cut_by_hand(name: str) -> None:
    kind, end = ENDS[name]
    net = Net(end)
    with torch.no_grad() if "out" in name else torch.enable_grad():
        scores, ending = run_scores(net, (X,))
        logits = net.linear(X)
    assert ending == kind
    assert torch.equal(scores.reshape(5, 3), logits.to(scores.dtype))
    if scores.requires_grad:
        scores.sum().backward()
        assert net.linear.bias.grad.tolist() == [5.0] * 3


OTHERS: dict[str, Callable[[Tensor], Any]] = {
    "logits": lambda z: z,
    "temperature behind": lambda z: F.softmax(z, 1) / 2,
    "in place behind": lambda z: F.softmax(z, 1).clamp_(min=0.2),
    "a view in place behind": lambda z: F.softmax(z, 1)[:, :, None].mul_(2).squeeze(2),
    "another axis": lambda z: F.softmax(z, 0),
    "positions": lambda z: F.softmax(z[:, :, None, None].expand(-1, -1, 2, 2).flatten(2), 2),
    "one class": lambda z: F.softmax(z, 1)[:, 1],
    "a slice of the classes": lambda z: F.softmax(z, 1)[:, :2],
    "classes in another order": lambda z: F.softmax(z, 1)[:, [2, 0, 1]],
    "one column": lambda z: F.softmax(z[:, :1], 1),
    "a mean of two": lambda z: (F.softmax(z, 1) + F.softmax(2 * z, 1)) / 2,
    "a gate": lambda z: z * torch.sigmoid(z),
    "attention": lambda z: F.softmax(z @ z.T, 1) @ z,
    "complement": lambda z: torch.stack([1 - z[:, 0].sigmoid(), z[:, 0].sigmoid()], 1),
    "logits beside probabilities": lambda z: {"probabilities": F.softmax(z, 1), "logits": z},
    "the source overwritten": lambda z: (F.softmax(z, 1), z.detach().zero_(), None)[0],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_softmax_over_the_classes_at_the_end_is_left_alone(name: str) -> None:
    net = Net(OTHERS[name])
    scores, ending = run_scores(net, (X,))
    returned = net(X.clone())
    assert ending == ""
    assert torch.equal(scores, returned["logits"] if isinstance(returned, dict) else returned)


def test_in_inference_mode() -> None:
    with torch.inference_mode():
        for name in ("module", "sigmoid", "log method", "wide"):
            assert run_scores(Net(ENDS[name][1]), (X,))[1] == ENDS[name][0]
        assert run_scores(Net(OTHERS["in place behind"]), (X,))[1] == ""


def test_attention_inside_and_a_softmax_at_the_end() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    body = nn.Sequential(nn.Unflatten(1, (1, 4)), layer, nn.Flatten(), nn.Linear(4, 3), nn.SiLU(), nn.Linear(3, 3))
    scores, ending = run_scores(nn.Sequential(body, nn.Softmax(1)), (X,))
    assert ending == "softmax"
    assert torch.equal(scores, body(X))
    assert run_scores(body, (X,))[1] == ""


def test_softmaxes_inside_are_not_held() -> None:
    with LastOperation() as last:
        for _ in range(9):
            weights = F.softmax(torch.zeros(2, 3), 1)
        gc.collect()
        assert len(last._made) == 1
        assert last.in_front_of(weights)[1] == "softmax"


def test_the_wrapper_is_a_module_around_the_model() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).eval()
    wrapped = pickle.loads(pickle.dumps(Scores(net, "softmax")))
    assert torch.equal(wrapped(X), net[0](X))
    assert not wrapped.training
    assert list(wrapped.state_dict()) == ["explained.0.weight", "explained.0.bias"]
    seen: list[Tensor] = []
    handle = net[1].register_forward_hook(lambda _m, _i, output: seen.append(output))
    Scores(net, "softmax")(X)
    handle.remove()
    assert torch.equal(seen[0], net(X))
    assert not net[1]._forward_hooks
    with pytest.raises(ValueError, match="ended in a softmax before, and now in something else"):
        Scores(net[0], "softmax")(X)
    assert not torch.overrides._get_current_function_mode_stack()


def test_an_output_of_a_model_says_once_what_is_explained() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    explained = Logit(1).of(net)
    with pytest.warns(
        AbsenceWarning, match="ends in a softmax over axis 1; its input, the logits, is explained"
    ) as seen:
        values = explained(X)
    assert torch.equal(values, net[0](X)[:, 1])
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explained(X)
        Logit(1).of(net[0])(X)


class Ensemble(nn.Module):
    """The mean of two members' probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(Net(nn.Softmax(1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


@pytest.mark.parametrize(
    ("net", "where"),
    [
        (Ensemble(), r"a softmax in 'members\.1\.end' \(Softmax\) runs, the last of 2.*put torch\.nn\.Identity"),
        (Net(lambda z: F.softmax(z, 1) * 1), r"a softmax in the forward of the model \(Net\) runs, but"),
        (Net(lambda z: z.exp() / z.exp().sum(1, keepdim=True)), "none is seen among the model's operations"),
    ],
    ids=["ensemble", "function", "written out"],
)
def test_where_probabilities_have_no_logits_the_message_says_where_they_are_made(net: nn.Module, where: str) -> None:
    with pytest.raises(ValueError, match="explain the logits: drop the softmax.*" + where):
        check_logits(run_scores(net, (X,))[0], lambda: run_scores(net, (X * 2,))[0])
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_softmaxes_are_located() -> None:
    with located_softmaxes() as found:
        Ensemble()(X)
        F.log_softmax(X, 1)
    assert found == [
        "softmax in 'members.0.end' (Softmax)",
        "softmax in 'members.1.end' (Softmax)",
        "log_softmax in a function",
    ]
