"""One forward for logits and prior, and the loops people train with: accumulation, mixed precision, several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from debias_nets import batch, cnn
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.methods.debias import AttributionPrior

WORKER = Path(__file__).with_name("debias_worker.py")


class Counting(nn.Module):
    """Counts the samples that pass, and whether they could be differentiated twice."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.seen: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((len(x), x.requires_grad))
        return self.body(x)


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def close(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(one, other, strict=True))


# -- the same numbers as by a shared forward ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["presence", "absence", "both"])
@pytest.mark.parametrize("carriers", [[0, 2, 3], [1], [], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_logits_prior_and_gradients_are_those_of_a_shared_forward(
    mode: str, carriers: list[int], training: bool
) -> None:
    x, y, mask = batch()
    mask = mask & torch.tensor([n in carriers for n in range(4)])[:, None, None, None]
    one, two = cnn(norm=True).train(training), cnn(norm=True).train(training)
    prior, other = (AttributionPrior(model, mode) for model in (one, two))  # type: ignore[arg-type]
    logits, penalty = prior.with_logits(x, y, mask)
    leaf = x.clone().requires_grad_()
    wanted = two(leaf)
    expected = other(leaf, y, mask, logits=wanted)
    assert torch.allclose(logits, wanted, rtol=1e-12, atol=1e-12)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-12, abs=0)
    assert (penalty.item() == 0) == (not carriers)
    assert not x.requires_grad
    assert prior.last is not None
    assert other.last is not None
    assert torch.allclose(prior.last.value, other.last.value, rtol=1e-12, atol=0)
    assert close(
        gradients(one, F.cross_entropy(logits, y) + 3 * penalty),
        gradients(two, F.cross_entropy(wanted, y) + 3 * expected),
    )
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))  # moved, and once


def test_every_sample_passes_once_and_only_those_with_a_mask_twice_differentiable() -> None:
    x, y, mask = batch()
    mask[1] = mask[3] = False
    model = Counting(cnn())
    AttributionPrior(model).with_logits(x, y, mask)
    assert model.seen == [(2, True), (2, False)]
    model = Counting(cnn())
    assert AttributionPrior(model).with_logits(x[1:2], y[1:2], mask[1:2])[1].item() == 0
    assert model.seen == [(1, True)]  # and no batch without samples
    model = Counting(cnn(norm=True))
    AttributionPrior(model).with_logits(x, y, mask)
    assert model.seen == [(4, True)]  # batch norm in training mode looks at all of them
    model = Counting(cnn(norm=True)).eval()
    AttributionPrior(model).with_logits(x, y, mask)
    assert model.seen == [(2, True), (2, False)]
    model = Counting(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False).double(), cnn())).eval()
    AttributionPrior(model).with_logits(x, y, mask)
    assert model.seen == [(4, True)]  # without statistics of its own, always


def test_the_penalty_of_a_step_has_exact_second_derivatives() -> None:
    x, y, mask = batch()
    mask[::2] = False
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)).double()
    prior = AttributionPrior(model, nontarget="others")  # the runner-up could change within a difference
    names = [name for name, _ in model.named_parameters()]

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        with torch.nn.utils.stateless._reparametrize_module(model, dict(zip(names, values, strict=True))):
            return prior.with_logits(x, y, mask)

    torch.manual_seed(0)
    values = [torch.randn_like(value).mul_(0.3).requires_grad_() for value in model.parameters()]
    assert torch.autograd.gradcheck(step, values, fast_mode=True)


@pytest.mark.parametrize("nontarget", ["mixture", "per sample", "callable"])
def test_nontargets_that_go_by_the_batch_keep_it_in_one_piece(nontarget: Any) -> None:
    x, y, mask = batch()
    mask[1] = False
    if nontarget != "mixture":
        chosen = (y + 1) % 3
        nontarget = chosen if nontarget == "per sample" else lambda scores, target: chosen
    model = Counting(cnn())
    _, penalty = AttributionPrior(model, nontarget=nontarget).with_logits(x, y, mask)
    assert model.seen == [(4, True)]
    x.requires_grad_()
    wanted = AttributionPrior(model, nontarget=nontarget)(x, y, mask, logits=model(x))
    assert penalty.item() == pytest.approx(wanted.item(), rel=1e-12)


@dataclass
class Answer:
    """What a model of transformers returns."""

    loss: Tensor | None
    logits: Tensor


@pytest.mark.parametrize(
    "form",
    [
        lambda logits: Answer(None, logits),
        lambda logits: {"out": logits, "aux": logits * 2},
        lambda logits: (logits, "name"),
    ],
)
def test_models_that_return_more_than_a_tensor(form: Any) -> None:
    x, y, mask = batch()
    mask[1] = False
    body = cnn()

    class Returning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Any:
            return form(self.body(x))

    model = Returning()
    wanted_logits, wanted = AttributionPrior(body).with_logits(x, y, mask)
    logits, penalty = AttributionPrior(model).with_logits(x, y, mask)
    assert torch.equal(logits, wanted_logits)
    assert torch.equal(penalty, wanted)
    assert AttributionPrior(model)(x, y, mask).item() == pytest.approx(wanted.item(), rel=1e-12)
    x.requires_grad_()
    assert AttributionPrior(model)(x, y, mask, logits=model(x)).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_outputs_that_cannot_be_told_apart_are_named() -> None:
    x, y, mask = batch()

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = cnn()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), self.body(x)

    with pytest.raises(ValueError, match=r"tuple with 0 \(4, 3\), 1 \(4, 3\): it cannot be told which"):
        AttributionPrior(Two()).with_logits(x, y, mask)


@pytest.mark.parametrize("form", ["column", "flat"])
def test_one_logit(form: str) -> None:
    x, y, mask = batch(classes=2)
    mask[1] = False
    model = cnn(classes=1)
    if form == "flat":
        model.append(nn.Flatten(0))
    logits, penalty = AttributionPrior(model).with_logits(x, y, mask)
    assert logits.shape == ((4,) if form == "flat" else (4, 1))
    assert torch.allclose(logits, model(x), rtol=1e-12)
    assert penalty.item() == pytest.approx(AttributionPrior(model)(x, y, mask).item(), rel=1e-12)


def test_without_gradients_and_with_those_of_x() -> None:
    x, y, mask = batch()
    mask[0] = False
    model = cnn()
    with torch.no_grad():
        logits, penalty = AttributionPrior(model).with_logits(x, y, mask)
    assert not logits.requires_grad
    assert not penalty.requires_grad
    assert torch.allclose(logits, model(x).detach(), rtol=1e-12)
    source = x.clone().requires_grad_()
    logits, again = AttributionPrior(model).with_logits(2 * source / 2, y, mask)
    assert again.item() == penalty.item()
    (slope,) = torch.autograd.grad(logits.sum(), source)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert torch.allclose(slope, wanted, rtol=1e-12)


def test_the_same_errors_as_any_call() -> None:
    x, y, mask = batch()
    mask[0] = False
    prior = AttributionPrior(cnn())
    with pytest.raises(ValueError, match="class 3, which does not exist"):
        prior.with_logits(x, torch.tensor([3, 0, 1, 2]), mask)
    with pytest.raises(TypeError, match="floating-point"):
        prior.with_logits(x.long(), y, mask)
    with pytest.raises(ValueError, match="divide it by 255"):
        prior.with_logits(x, y, mask * 255)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch\.no_grad"):
        prior.with_logits(x, y, mask)


def test_transformers_need_no_context() -> None:
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    torch.manual_seed(0)
    model = vision.VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=3).eval()
    nn.init.normal_(model.heads.head.weight)
    x, y, mask = torch.rand(3, 3, 16, 16), torch.tensor([0, 2, 1]), torch.rand(3, 1, 16, 16) < 0.5
    mask[1] = False
    logits, penalty = AttributionPrior(model).with_logits(x, y, mask)
    assert torch.allclose(logits, model(x), rtol=1e-4, atol=1e-5)
    wanted = gradients(model, F.cross_entropy(model(x), y) + AttributionPrior(model)(x, y, mask))
    found = gradients(model, F.cross_entropy(logits, y) + penalty)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, wanted, strict=True))
    assert torch.backends.cuda.flash_sdp_enabled()


# -- the loops people train with ---------------------------------------------------------------------------------------


def test_gradients_accumulated_over_parts_are_those_of_the_batch() -> None:
    x, y, mask = batch()
    mask[1] = False
    one, two = cnn(), cnn()
    logits, penalty = AttributionPrior(one).with_logits(x, y, mask)
    (F.cross_entropy(logits, y) + 3 * penalty).backward()
    prior = AttributionPrior(two)
    for rows in (slice(0, 2), slice(2, 4)):
        logits, penalty = prior.with_logits(x[rows], y[rows], mask[rows])
        ((F.cross_entropy(logits, y[rows]) + 3 * penalty) / 2).backward()
    grads = [[p.grad for p in model.parameters() if p.grad is not None] for model in (one, two)]
    assert len(grads[0]) == 4
    assert close(*grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("call", ["with_logits", "logits=", "own"])
def test_a_scaled_step_in_half_precision_goes_where_the_plain_one_goes(dtype: torch.dtype, call: str) -> None:
    x, y, mask = batch(dtype=torch.float32)
    mask[1] = False
    plain, half = (cnn(dtype=torch.float32) for _ in range(2))
    logits, penalty = AttributionPrior(plain).with_logits(x, y, mask)
    wanted = torch.cat([part.flatten() for part in gradients(plain, F.cross_entropy(logits, y) + 3 * penalty)])
    optimizer = torch.optim.SGD(half.parameters(), lr=0.1)
    before = [value.detach().clone() for value in half.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    prior = AttributionPrior(half)
    with torch.autocast("cpu", dtype):
        if call == "with_logits":
            logits, penalty = prior.with_logits(x, y, mask)
        else:
            x.requires_grad_(call == "logits=")
            logits = half(x)
            penalty = prior(x, y, mask, logits=logits if call == "logits=" else None)
        assert logits.dtype == dtype
        assert penalty.dtype == torch.float32
        loss = F.cross_entropy(logits, y) + 3 * penalty
    scaler.scale(loss).backward(inputs=list(half.parameters()))
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**10  # nothing overflowed
    moved = torch.cat([(old - new).flatten() / 0.1 for old, new in zip(before, half.parameters(), strict=True)])
    least = 0.99 if dtype == torch.bfloat16 else 0.9999  # 8 bits move some values across a ReLU's zero
    assert F.cosine_similarity(moved, wanted, dim=0) > least
    assert moved.norm().item() == pytest.approx(wanted.norm().item(), rel=0.03)


@pytest.mark.slow
def test_two_processes_get_the_gradients_of_one(tmp_path: Path) -> None:
    """DistributedDataParallel averages the gradients of equal parts of the batch: those of the whole batch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    command += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", str(WORKER), str(tmp_path / "grads.pt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    x, y, mask = batch()
    model = cnn()
    logits, penalty = AttributionPrior(model).with_logits(x, y, mask & (y == 0)[:, None, None, None])
    wanted = gradients(model, F.cross_entropy(logits, y) + 3 * penalty)
    assert penalty.item() > 0
    assert list(found) == ["with_logits", "logits=", "own"]
    for name, ranks in found.items():
        assert len(ranks) == 2
        assert all(close(grads, wanted) for grads in ranks), name
