"""The attribution prior beside the user's training: transformers, autocast, state, bad input."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from debias_nets import batch, cnn
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.methods.debias import AttributionPrior, Parts, masked_attribution, twice_differentiable

# -- models ------------------------------------------------------------------------------------------------------------


def vit() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    torch.manual_seed(0)
    model = vision.VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=3)
    nn.init.normal_(model.heads.head.weight)
    return model, torch.rand(2, 3, 16, 16), torch.tensor([0, 2]), torch.rand(2, 1, 16, 16) < 0.5


@pytest.mark.parametrize("training", [True, False])
def test_transformers_by_an_own_forward_and_by_a_shared_one(training: bool) -> None:
    model, x, y, mask = vit()
    model.train(training)
    prior = AttributionPrior(model)
    before = torch.backends.cuda.flash_sdp_enabled()
    value = prior(x, y, mask)
    value.backward()
    own = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in own) > 0
    assert torch.backends.cuda.flash_sdp_enabled() == before
    model.zero_grad()
    x.requires_grad_()
    with twice_differentiable():
        logits = model(x)
    prior(x, y, mask, logits=logits).backward(inputs=list(model.parameters()))
    shared = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(own, shared, strict=True))


def test_a_shared_forward_through_a_fused_kernel_is_refused_at_once() -> None:
    model, x, y, mask = vit()
    x.requires_grad_()
    with pytest.raises(ValueError, match="twice_differentiable"):
        AttributionPrior(model)(x, y, mask, logits=model(x))


@pytest.mark.parametrize("shared", [True, False])
def test_under_autocast(shared: bool) -> None:
    x, y, mask = batch(dtype=torch.float32)
    model = cnn(norm=True, dtype=torch.float32)
    wanted = AttributionPrior(model)(x, y, mask)
    x.requires_grad_(shared)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x) if shared else None
        value = AttributionPrior(model)(x, y, mask, logits=logits)
        assert value.dtype == torch.float32
    value.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=0.05)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# -- nothing left behind -----------------------------------------------------------------------------------------------


class Strict(nn.Module):
    """In-place first layer, dropout, and a counter that every forward moves."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(inplace=True), cnn(norm=True, dtype=torch.float32), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.body(x)


def test_an_own_forward_leaves_no_trace() -> None:
    x, y, mask = batch(dtype=torch.float32)
    model = Strict()
    model.body[0].eval()
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    before, random = x.clone(), torch.get_rng_state()
    prior = AttributionPrior(model)
    prior(x, y, mask).backward()
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_a_failing_forward_leaves_no_trace() -> None:
    class Broken(Strict):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise KeyError("inside")

    x, y, mask = batch(dtype=torch.float32)
    model = Broken()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(KeyError):
        AttributionPrior(model)(x, y, mask)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_model_is_no_part_of_the_prior() -> None:
    (x, y, mask), model = batch(), cnn()
    prior = AttributionPrior(model)
    wanted = prior(x, y, mask).item()
    assert prior.model is model
    with pytest.raises(AttributeError, match="make a new"):
        prior.model = cnn()
    assert list(prior.parameters()) == list(prior.buffers()) == []
    assert list(prior.state_dict()) == ["_extra_state"]
    prior.eval().float()
    assert model.training
    assert next(model.parameters()).dtype == torch.float64
    both = copy.deepcopy(nn.ModuleList([model, prior]))
    assert both[1].model is both[0]
    for other in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior), both[1]):
        assert other.model is not model
        assert other(x, y, mask).item() == wanted


def test_without_gradients_there_is_a_value_and_no_graph() -> None:
    (x, y, mask), model = batch(), cnn()
    prior = AttributionPrior(model)
    wanted = prior(x, y, mask)
    with torch.no_grad():
        value = prior(x, y, mask)
    assert not value.requires_grad
    assert value.item() == wanted.item()
    assert wanted.requires_grad
    assert isinstance(prior.last, Parts)
    assert not prior.last.value.requires_grad
    assert prior.last.to_dict()["value"] == prior.last.value.tolist()
    assert "4 samples" in repr(prior.last)


# -- bad input ---------------------------------------------------------------------------------------------------------

GOOD = batch()
BAD: list[tuple[str, type[Exception], str, dict[str, Any]]] = [
    ("x of integers", TypeError, "floating-point", {"x": GOOD[0].long()}),
    ("x without axes", ValueError, r"\[N, C", {"x": GOOD[0].flatten()}),
    ("y of floats", TypeError, r"y\.long\(\)", {"y": GOOD[1].double()}),
    ("y one-hot", ValueError, r"shape \(4,\), got \(4, 3\)", {"y": F.one_hot(GOOD[1], 3)}),
    ("y too large", ValueError, "class 3, which does not exist", {"y": GOOD[1] + 1}),
    ("y negative", ValueError, "class -1, which does not exist", {"y": GOOD[1] - 1}),
    ("mask no tensor", TypeError, "got list", {"mask": [1]}),
    ("mask of another size", ValueError, r"\(4, 6, 6\) or \(4, 1, 6, 6\) or", {"mask": GOOD[2][:, :, :5]}),
    ("mask in bytes", ValueError, "divide it by 255", {"mask": GOOD[2] * 255}),
    ("mask negative", ValueError, "from -1 to 0", {"mask": -GOOD[2].long()}),
    ("mask not a number", ValueError, "nan", {"mask": GOOD[2] * torch.nan}),
    ("logits of x without grad", ValueError, r"x\.requires_grad_\(\) before", {"logits": torch.randn(4, 3)}),
    ("logits no tensor", TypeError, "tensor of logits", {"logits": 3}),
    ("logits of another batch", ValueError, r"\(4, K\)", {"logits": torch.randn(5, 3)}),
]


@pytest.mark.parametrize(("error", "match", "change"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_calls_say_what_would_be_right(error: type[Exception], match: str, change: dict[str, Any]) -> None:
    x, y, mask = GOOD
    with pytest.raises(error, match=match):
        AttributionPrior(cnn())(**{"x": x, "y": y, "mask": mask, **change})


def test_logits_without_a_way_back_to_x_are_refused() -> None:
    (x, y, mask), model = batch(), cnn()
    x.requires_grad_()
    prior = AttributionPrior(model)
    with pytest.raises(ValueError, match="have no graph"):
        prior(x, y, mask, logits=model(x).detach())
    with pytest.raises(ValueError, match="do not depend on x"):
        prior(x, y, mask, logits=model(x.detach()))
    for output, given in ((model(x)[:, 0], x.clone()), (model(x)[:, 0].detach(), x), (model(x)[:, 0], x.detach())):
        with pytest.raises(ValueError, match="do not depend on x"):
            masked_attribution(output, given, mask)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch\.no_grad"):
        prior(x, y, mask)


def test_probabilities_are_refused() -> None:
    x, y, mask = batch()
    with pytest.raises(ValueError, match="softmax"):
        AttributionPrior(nn.Sequential(cnn(), nn.Softmax(1), nn.ReLU()))(x, y, mask)
    model = nn.Sequential(cnn(), nn.Softmax(1))
    x.requires_grad_()
    with pytest.raises(ValueError, match="or leave out logits=, then the logits in front of a softmax are found"):
        AttributionPrior(model)(x, y, mask, logits=model(x))


def test_bad_settings_say_what_would_be_right() -> None:
    with pytest.raises(TypeError, match=r"nn\.Module, got function"):
        AttributionPrior(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode='presense'"):
        AttributionPrior(cnn(), "presense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="normalize='max'"):
        AttributionPrior(cnn(), normalize="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'mixture', a class index"):
        AttributionPrior(cnn(), nontarget="second")  # type: ignore[arg-type]
    x, y, mask = batch()
    with pytest.raises(ValueError, match="is the target itself"):
        AttributionPrior(cnn(), nontarget=1)(x, y, mask)
