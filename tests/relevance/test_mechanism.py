"""The two passes and what stands between them: closed forms, in-place operations, inputs of every structure, layers."""

from __future__ import annotations

import pytest
import torch
from graph_nets import Call, D, check, net, rand
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.outputs import Logit
from absence_plugins.relevance import relevance

# -- closed forms ------------------------------------------------------------------------------------------------------


def test_linear_networks_are_their_own_secant() -> None:
    # unsharp masking and a branch that is subtracted: the exact map of a linear network is known
    blur = nn.AvgPool2d(3, 1, 1)
    conv, head = net(nn.Conv2d(2, 4, 3, padding=1)), net(nn.Linear(256, 3), seed=1)
    x, r = rand(2, 2, 8, 8), rand(2, 2, 8, 8, seed=1)

    def forward(image: Tensor) -> Tensor:
        return head(conv(image + (image - blur(image))).flatten(1))

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(check(forward, x, r, 1).attribution, gradient * (x - r), rtol=1e-12, atol=1e-12)


def test_rescale_rule_by_hand() -> None:
    model = Call(lambda s, x: torch.relu(x @ torch.tensor([[1.0, 1.0], [-2.0, 1.0]], dtype=D)).sum(1))
    x, r = torch.tensor([[3.0, 1.0]], dtype=D), torch.tensor([[0.0, 1.0]], dtype=D)
    # z(x) = (1, 4), z(r) = (-2, 1): slopes 1/3 and 1
    found = relevance(model, x, r)
    torch.testing.assert_close(found.attribution, torch.tensor([[3 * (1 / 3 + 1), 0.0]], dtype=D))
    torch.testing.assert_close(found.multipliers[0], torch.tensor([[4 / 3, -2 / 3 + 1]], dtype=D))


def test_a_gate_gets_its_half() -> None:
    model = Call(lambda s, x: x[:, 0] * x[:, 1])
    found = check(model, torch.tensor([[3.0, 5.0]], dtype=D), torch.tensor([[1.0, 2.0]], dtype=D), None)
    assert found.attribution.tolist() == [[2 * 3.5, 3 * 2.0]]


# -- any graph ---------------------------------------------------------------------------------------------------------


def shifted(s: Call, x: Tensor) -> Tensor:
    h = s.a(x)
    h += 1
    h *= 2
    residual = h
    h = F.relu(h, inplace=True)  # overwrites the residual, too
    return s.b(h + residual)


def written_views(s: Call, x: Tensor) -> Tensor:
    h = s.a(x)
    h[:, :2].mul_(h[:, 2:])
    F.silu(h[:, 1:3], inplace=True)
    buffer = torch.zeros_like(h)
    buffer[:, 1:] = h[:, 1:]
    buffer[:, 0].copy_(h[:, 3] * 2)
    return s.b(buffer)


def kept_operand(s: Call, x: Tensor) -> Tensor:
    h = s.a(x)
    y = h.exp()  # keeps its output
    z = y * h  # keeps both
    y.add_(h)
    h.tanh_()
    return y + z + h


GRAPHS = {
    "in place": shifted,
    "views in place": written_views,
    "operands overwritten": kept_operand,
    "chunks": lambda s, x: torch.cat([c.sigmoid() for c in s.a(x).chunk(2, 1)], 1),
    "max with indices": lambda s, x: s.a(x).view(-1, 2, 2).max(dim=2).values,
    "max of two": lambda s, x: torch.max(s.a(x), s.b(x)),
    "quotient": lambda s, x: s.a(x) / (1 + s.b(x).exp()),
    "number over": lambda s, x: 1 / (1 + (-s.a(x)).exp()),
    "powers": lambda s, x: s.a(x) ** 2 + 2 ** s.b(x),
    "subtracted from": lambda s, x: 1 - s.a(x).relu(),
    "softmax": lambda s, x: F.softmax(s.a(x), -1) + s.b(x).log_softmax(-1),
    "einsum": lambda s, x: torch.einsum("bi,bj->bi", s.a(x), s.b(x)),
    "norm": lambda s, x: F.normalize(s.a(x), dim=-1) + s.a(x).norm(dim=-1, keepdim=True),
    "weight from weights": lambda s, x: F.linear(x, s.a.weight / s.a.weight.norm()).tanh(),
    "weight transposed": lambda s, x: x.tanh() @ s.a.weight.T,
    "split": lambda s, x: torch.stack(s.a(x).split([1, 3], 1)[1].unbind(1), 1).relu(),
    "pooling": lambda s, x: F.max_pool1d(s.a(x), 2).repeat(1, 2) + F.adaptive_max_pool1d(s.b(x), 4),
    "branch on shape": lambda s, x: s.a(x).relu() if x.shape[0] > 0 and len(x) else x,
    "same branch": lambda s, x: s.a(x).relu() if bool(x.sum() < 1e9) else x,
    "constant mask": lambda s, x: s.a(x).masked_fill(torch.eye(4, dtype=torch.bool)[:1], 0.0).exp(),
    "drawn numbers": lambda s, x: s.a(x).relu() * torch.rand(4, dtype=D),
    "iterated": lambda s, x: torch.stack([row.square().sum() * row for row in s.a(x)]),
    "layer norm": lambda s, x: F.layer_norm(s.a(x), (4,)) + F.rms_norm(s.b(x), (4,)),
    "embedded weights": lambda s, x: s.a(x) * F.embedding(torch.arange(len(x)), s.b.weight.repeat(4, 1)),
    "complex": lambda s, x: torch.fft.irfft(torch.fft.rfft(s.a(x)) * torch.tensor([1.0, 2j, 0.5]), n=4).relu(),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str) -> None:
    model = Call(GRAPHS[name])
    x, r = rand(4, 4), rand(4, 4, seed=1)
    found = check(model, x, r, 1)
    if name != "drawn numbers":
        assert torch.equal(found.output, model(x)[:, 1].detach())
        assert torch.equal(found.reference_output[0], model(r)[:, 1].detach())
    assert float(found.attribution.abs().sum()) > 0


def test_overwritten_operands_do_not_change_the_map() -> None:
    def out_of_place(s: Call, x: Tensor) -> Tensor:
        h = s.a(x)
        y = h.exp()
        return y + h + y * h + h.tanh()

    x, r = rand(4, 4), rand(4, 4, seed=1)
    found, expected = (relevance(Call(f), x, r, 1).attribution for f in (kept_operand, out_of_place))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_after_a_convolution_on_one_sample() -> None:
    # torch's own backward of batch norm is wrong on this layout of memory
    layers = nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.Flatten(2)
    embed, head = net(*layers), net(nn.Linear(4, 2), seed=3)
    check(lambda image: head(embed(image).transpose(1, 2).tanh().mean(1)), rand(1, 3, 8, 8), rand(1, 3, 8, 8, seed=1))


# -- inputs, references, outputs ---------------------------------------------------------------------------------------


def test_many_references_share_one_graph() -> None:
    model = net(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, references = rand(2, 4), rand(3, 2, 4, seed=1)
    found = relevance(model, x, references, 2)
    assert found.per_reference.shape == (3, 2, 4)
    assert found.reference_output.shape == found.conservation_error.shape == (3, 2)
    for index, r in enumerate(references):
        assert torch.equal(found.per_reference[index], relevance(model, x, r, 2).attribution)
    torch.testing.assert_close(found.attribution, found.per_reference.mean(0))
    assert torch.equal(relevance(model, x, list(references), 2).per_reference, found.per_reference)
    one = relevance(model, x[:1], references[:, 0], 2)  # of one sample: an axis of samples is one of references
    torch.testing.assert_close(one.per_reference, found.per_reference[:, :1], rtol=1e-12, atol=1e-12)


def test_a_batch_is_its_samples() -> None:
    model = net(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3))
    x, r = rand(3, 2, 8, 8), rand(3, 2, 8, 8, seed=1)
    together = relevance(model, x, r, [0, 1, 2])
    for index in range(3):
        one = relevance(model, x[index : index + 1], r[index : index + 1], index)
        torch.testing.assert_close(together.attribution[index : index + 1], one.attribution, rtol=1e-12, atol=1e-12)
    assert float(together.conservation_error.max()) < 1e-12


def test_tuples_and_dictionaries() -> None:
    model = Call(lambda s, image, scale=None, names=None: s.a(image).relu() * s.b(scale))
    x, r = (rand(2, 4), rand(2, 4, seed=1)), (rand(2, 4, seed=2), rand(2, 4, seed=3))
    found = check(model, x, r)
    assert isinstance(found.attribution, tuple)
    keys = ("image", "scale")
    same = check(model, *(dict(zip(keys, value, strict=True)) | {"names": None} for value in (x, r)))
    assert list(same.attribution) == ["image", "scale", "names"]
    assert same.attribution["names"] is None
    assert torch.equal(same.attribution["scale"], found.attribution[1])
    fixed = relevance(model, dict(zip(keys, x, strict=True)), {"image": r[0]}, 0)  # scale stays as it is
    assert not bool(fixed.attribution["scale"].any())


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 2)
        self.to(D).eval()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.words(tokens) + self.places(torch.arange(tokens.shape[1])).unsqueeze(0)
        h = h.tanh() if mask is None else h.tanh() * mask.unsqueeze(2)
        return self.head(h.sum(1))


def test_integers_get_relevance_at_their_embedding() -> None:
    model = Text()
    x, r = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 7, 3], [8, 5, 5]])
    found = check(model, x, r, 1)
    assert found.attribution.shape == (2, 3, 4)
    assert (found.attribution.abs().sum(2) > 0).tolist() == (x != r).tolist()
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    masked = check(model, {"tokens": x, "mask": mask}, {"tokens": r, "mask": mask}, 1)
    assert masked.attribution["mask"] is None
    assert not bool(masked.attribution["tokens"][0, 2].any())


def test_outputs_of_every_kind() -> None:
    model = net(nn.Linear(4, 3), nn.Tanh())
    x, r = rand(2, 4), rand(2, 4, seed=1)
    columns = [relevance(model, x, r, index).attribution for index in range(3)]
    chosen = relevance(model, x, r, torch.tensor([2, 0])).attribution
    assert torch.equal(chosen[0], columns[2][0])
    assert torch.equal(chosen[1], columns[0][1])
    margin = relevance(model, x, r, torch.tensor([1.0, -1.0, 0.0], dtype=D)).attribution
    torch.testing.assert_close(margin, columns[0] - columns[1])
    assert torch.equal(relevance(model, x, r, Logit(2, sign=-1)).attribution, -columns[2])
    squared = check(model, x, r, lambda out: (out[:, 0] * out[:, 1]).exp())  # the selection is part of the graph
    assert torch.equal(squared.output, (model(x)[:, 0] * model(x)[:, 1]).exp().detach())


def test_samples_that_meet_each_other() -> None:
    model = Call(lambda s, x: F.linear(s.a(x).relu(), s.b(x).tanh()))  # the weights are computed from all samples
    x, r = rand(4, 4), rand(4, 4, seed=1)
    found = relevance(model, x, r, 1)
    torch.testing.assert_close(found.attribution.sum(), found.difference.sum())
    assert float(found.conservation_error.max()) < 1e-12


def test_a_time_axis_in_front() -> None:
    model, head = nn.LSTM(3, 4).to(D), net(nn.Linear(4, 2))  # [T, B, F]
    x, r = rand(6, 2, 3), rand(6, 2, 3, seed=1)
    found = relevance(lambda value: head(model(value)[0][-1]), x, r, 0)
    torch.testing.assert_close(found.attribution.sum(), found.difference.sum())
