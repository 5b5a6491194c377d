"""Input and reference side by side: hooks on the root of the model that make one batch [x, r] of them.

The join puts the reference behind the input, the rules (:mod:`absence_plugins.zennit.rules`) read differences
between the halves, the split hands the outputs of x to the caller. On the way back the split turns what the caller
seeds into R_u = u(x) - u(r) and the join checks that nothing of it was lost.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import BasicHook, Hook, RemovableHandle, RemovableHandleList

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import quiet_forward
from absence_plugins.core.outputs import check_logits, shrunk
from absence_plugins.zennit.causes import likely_causes
from absence_plugins.zennit.graph import unseen_operation

# |sum R - (u(x) - u(r))| may be so many times |u(x) - u(r)| + sum |R|: rounding of the network's own arithmetic
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
ROUNDING = 64  # units in the last place of the outputs, by which u(x) - u(r) may be off
COARSE = 5e-2  # half precision, or tensor cores that round to ten bits
RANDOM_OR_MIXING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.RReLU,
)


class ConservationError(ValueError):
    """The relevance does not sum to u(x) - u(r): part of the network is invisible to the rules."""


class Trace:
    """What one paired forward and the backward through it leave for the check."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.outputs: tuple[Tensor, Tensor] | None = None  # of x and of r
        self.restart(None)

    def restart(self, seed: Tensor | None) -> None:
        """A new backward begins. seed: R_u of every sample [B]."""
        self.seed = seed
        self.absorbed: Tensor | float = 0.0
        self.rounding: Tensor | float = 0.0  # of the outputs themselves
        self.leaks: list[tuple[nn.Module, Tensor]] = []
        self.own_layer_passed = False
        self.has_spread = False  # by a rule that ignores what differs: Flat, WSquare

    def is_own_layer(self) -> bool:
        """Whether the asking layer is the first one with weights that relevance reaches: the unit's own."""
        first = not self.own_layer_passed
        self.own_layer_passed = True
        return first

    def absorb(self, relevance: Tensor) -> None:
        """Account for relevance that the user's stabilizer takes away."""
        self.absorbed = self.absorbed + per_sample(relevance, self.samples)

    def note_leaks(self, module: nn.Module, relevance: Tensor, change: Tensor) -> None:
        """Relevance at places where x and r do not differ came through an operation that no rule describes."""
        here = (change == 0) & (relevance != 0)
        if bool(here.any()):
            self.leaks.append((module, per_sample((relevance * here).abs(), self.samples)))


class RootHook(Hook):
    """A hook on the root of a model that runs several copies of the input in one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.reference: Tensor | None = None  # broadcasts to the input; None: zeros
        self.weights_given = False  # the attributor's seed says how much of which output is explained, literally
        self.checked = True
        self.announced = False
        self.trace: Trace | None = None  # while the model runs
        self.last: Trace | None = None

    def register(self, module: nn.Module) -> Any:
        """Before and behind all other hooks of the module."""
        return RemovableHandleList(
            [
                RemovableHandle(self),
                module.register_forward_pre_hook(self.pre_forward, prepend=True),
                module.register_forward_hook(self.post_forward),
            ]
        )

    def remove(self) -> None:
        """What is still in a graph passes the plain gradient from now on, as with Zennit."""
        super().remove()
        self.active = False

    def pre_forward(self, module: nn.Module, input: Any) -> Any:
        """Put the copies behind each other, if a gradient is asked for."""
        self.trace = None
        tensors = [value for value in input if isinstance(value, Tensor)]
        if len(tensors) != 1 or not isinstance(input[0], Tensor):
            raise ValueError(
                f"the model takes {len(tensors)} tensors; Zennit attributes to one input. Wrap the model so that it takes only that one"
            )
        x = tensors[0]
        if x.dim() == 0 or len(x) == 0:
            raise ValueError(f"the input has shape {tuple(x.shape)}; it needs at least one sample along its first axis")
        if not (torch.is_grad_enabled() and x.requires_grad):
            return None
        check_mode(module)
        self.trace = Trace(x.shape[0])
        return (_Join.apply(self, weakref.ref(module), self.trace, x), *input[1:])

    def post_forward(self, module: nn.Module, input: Any, output: Any) -> Any:
        """The outputs of x alone."""
        trace, self.trace = self.trace, None
        if trace is None:
            return output
        if (
            not isinstance(output, Tensor)
            or output.dim() == 0
            or output.shape[0] % trace.samples
            or output.shape[0] == trace.samples
        ):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the model must return one row of outputs per sample ({trace.samples}), got {shape}; wrap it so that it does"
            )
        own, *others = output.detach().split(trace.samples)
        check_logits(own, lambda: self._elsewhere(module, input))
        trace.outputs = (own, others[0])
        self.last = trace
        self.check_graph(module, input[0], output)
        return _Split.apply(self, trace, output)

    def _elsewhere(self, module: nn.Module, input: Any) -> Tensor:
        """The model's outputs for other inputs, to tell a softmax from logits that sum to 1 by chance."""
        other = shrunk((input[0].detach(),))
        with quiet_forward(other):
            outputs: Tensor = module(*other, *input[1:])
        return outputs

    @property
    def outputs(self) -> tuple[Tensor, Tensor]:
        """The outputs of x and of r in the last paired forward."""
        assert self.last is not None
        assert self.last.outputs is not None
        return self.last.outputs

    def reference_for(self, x: Tensor) -> Tensor:
        """The reference of every sample, in the shape of x."""
        if self.reference is None:
            if not self.announced:
                warnings.warn(
                    "no reference is given, so the input is compared with zeros, where nothing missing can show; "
                    "pass AbsenceGradient(..., reference=ReferenceSet(images, labels))",
                    AbsenceWarning,
                    stacklevel=2,
                )
            return torch.zeros_like(x)
        return expanded_reference(self.reference, x)

    # what differs between pairs and triples

    def check_graph(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Look for what no rule describes."""

    def copies(self, x: Tensor) -> Tensor:
        """x [B, ...] -> the batch that the network sees."""
        raise NotImplementedError

    def seeds(self, trace: Trace, weights: Tensor, output: Tensor) -> Tensor:
        """What is explained, as the gradient that goes into the network's outputs."""
        raise NotImplementedError

    def collect(self, trace: Trace, root: nn.Module | None, x: Tensor, gradient: Tensor) -> Tensor:
        """What comes out at the network's inputs, as the map of x."""
        raise NotImplementedError


class Pair(RootHook):
    """The batch [x, r]: relevance of the difference, conserved."""

    def __init__(self) -> None:
        super().__init__()
        self._bound: list[Any] = []

    def register(self, module: nn.Module) -> Any:
        """On the root; tells every rule on the model's modules whom it belongs to."""
        check_modules(module)
        for hook in hooks_on(module):
            if isinstance(hook, BasicHook):
                name = type(hook).__name__
                raise ValueError(
                    f"{name} is a rule of Zennit's, which shares relevance out by values and not by differences; "
                    f"use Absence{name} beside the other Absence rules"
                )
            if hasattr(hook, "pair"):
                hook.pair = self
                self._bound.append(weakref.ref(hook))
        return super().register(module)

    def remove(self) -> None:
        """The rules are on their own again."""
        super().remove()
        for reference in self._bound:
            hook = reference()
            if hook is not None and hook.pair is self:
                hook.pair = None
        self._bound.clear()

    def copies(self, x: Tensor) -> Tensor:
        """[x, r]."""
        return torch.cat([x, self.reference_for(x).to(x)])

    def check_graph(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Refuse operations outside the rules: the gradient of a pooling keeps the sum of R and puts it elsewhere."""
        if self.checked and self.active:
            operation = unseen_operation(output)
            if operation:
                raise ConservationError(
                    f"{operation} is called outside the modules that have a rule, so its relevance would land in the wrong "
                    f"places. {likely_causes(module, x[: max(1, len(x) // 2)])}"
                )

    def seeds(self, trace: Trace, weights: Tensor, output: Tensor) -> Tensor:
        """R_u = w (u(x) - u(r)) on x's half, nothing on r's."""
        x, r = output.chunk(2)
        seed = weights * (x - r)
        trace.restart(per_sample(seed.detach(), trace.samples))
        size = weights.abs() * torch.maximum(x.abs(), r.abs())
        trace.rounding = ROUNDING * torch.finfo(seed.dtype).eps * per_sample(size, trace.samples)
        return torch.cat([seed, torch.zeros_like(seed)])

    def collect(self, trace: Trace, root: nn.Module | None, x: Tensor, gradient: Tensor) -> Tensor:
        """x's half, after the check."""
        relevance = gradient.chunk(2)[0]
        if self.checked and trace.seed is not None:
            check_conservation(trace, root, x, relevance.detach())
        return relevance


def check_conservation(trace: Trace, root: nn.Module | None, x: Tensor, relevance: Tensor) -> None:
    """Compare sum R with u(x) - u(r).

    Raises:
        ConservationError: they differ by more than :data:`TOLERANCE`, or relevance arrived where x and r are
            the same; with what the model does that no rule sees.
    """
    assert trace.seed is not None
    total = per_sample(relevance, trace.samples)
    scale = trace.seed.abs() + per_sample(relevance.abs(), trace.samples)
    allowed = tolerance(relevance) * scale + trace.rounding
    lost = (trace.seed - total - trace.absorbed).abs()
    wrong = ~(lost <= allowed)  # NaN is wrong
    where = ""
    for module, leaked in trace.leaks:
        if not where and bool((leaked > allowed).any()):
            wrong |= leaked > allowed
            where = f", and some reaches {name_of(module, root)} where input and reference do not differ"
            where += " (Flat and WSquare belong in the first layer)" if trace.has_spread else ""
    if not bool(wrong.any()):
        return
    row = int(wrong.nonzero()[0])
    raise ConservationError(
        f"the relevance of sample {row} sums to {float(total[row]):.4g}, but u(x) - u(r) = {float(trace.seed[row]):.4g}{where}. "
        + likely_causes(root, x)
    )


def tolerance(values: Tensor) -> float:
    """The relative tolerance of the conservation check for values of this type on this device."""
    coarse = values.is_cuda and torch.backends.cudnn.allow_tf32 and values.dtype == torch.float32
    return COARSE if coarse else TOLERANCE.get(values.dtype, COARSE)


def per_sample(values: Tensor, samples: int) -> Tensor:
    """Sums over everything but the samples [B], in float64 where the device has it."""
    dtype = torch.float32 if values.device.type == "mps" else torch.float64
    return values.detach().reshape(samples, -1).sum(1, dtype=dtype)


def output_weights(seed: Tensor, output: Tensor) -> Tensor:
    """How much of which output a seed in Zennit's manner asks for.

    Zennit seeds LRP with the output itself (its default, or ``output * eye``) and gradients with ones: entries
    that hand an output through and entries of 1 alike mean "this output"; any other number is its weight.

    >>> output_weights(torch.tensor([[0.0, -3.0, 2.0]]), torch.tensor([[5.0, -3.0, 7.0]]))
    tensor([[0., 1., 2.]])
    """
    rows = (-1, *[1] * (seed.dim() - 1))
    handed = (seed == output).reshape(len(seed), -1).all(1)  # the outputs themselves, also where one of them is 0
    mask = ((seed == 0) | (seed == 1)).reshape(len(seed), -1).all(1) & (seed != 0).reshape(len(seed), -1).any(1)
    means_output = ((seed == output) & (seed != 0)) | (handed & ~mask).reshape(rows)
    return torch.where(means_output, torch.ones_like(seed), seed)


def expanded_reference(reference: Tensor, x: Tensor) -> Tensor:
    """The reference in the shape of x. Raises ValueError where it does not broadcast, or is not a number."""
    if not bool(torch.isfinite(reference).all()):
        raise ValueError("the reference holds NaN or infinite values; leave such images out")
    try:
        return reference.to(x).expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"a reference of shape {tuple(reference.shape)} does not broadcast to inputs of shape {tuple(x.shape)}; "
            "pass one image, one per sample, or a ReferenceSet"
        ) from None


def hooks_on(root: nn.Module) -> list[Any]:
    """The objects whose methods are forward hooks anywhere on the model; none on what is no module."""
    found: dict[int, Any] = {}
    for module in root.modules() if isinstance(root, nn.Module) else ():
        for function in module._forward_hooks.values():
            owner = getattr(function, "__self__", None)
            if isinstance(owner, Hook):
                found[id(owner)] = owner
    return list(found.values())


def check_modules(root: nn.Module) -> None:
    """Refuse modules for which no rule is right. Raises ValueError."""
    for name, module in root.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            raise ValueError(
                f"{name or 'the model'} is a MultiheadAttention, for which there is no reference-relative rule (Zennit passes "
                "relevance through it as if it were a ReLU); use absence_plugins.captum.AbsenceIntegratedGradients"
            )


def check_mode(root: nn.Module) -> None:
    """Refuse training mode where it would mix input and reference. Raises ValueError."""
    for name, module in root.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{name} ({type(module).__name__}) takes its statistics from the batch (track_running_stats=False), in which "
                "input and reference would mix; there is no rule for it"
            )
        if module.training and isinstance(module, RANDOM_OR_MIXING):
            raise ValueError(
                f"{name} ({type(module).__name__}) is in training mode, in which input and reference do not pass it alike; "
                "call model.eval() first"
            )


def name_of(module: nn.Module, root: nn.Module | None) -> str:
    """A module's name and type, for messages."""
    names = {} if root is None else {found: name for name, found in root.named_modules()}
    return f"{names.get(module, '') or 'the model'} ({type(module).__name__})"


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hook: RootHook, root: Any, trace: Trace, x: Tensor) -> Tensor:
        ctx.hook, ctx.root, ctx.trace, ctx.is_join = hook, root, trace, True
        ctx.save_for_backward(x)
        return hook.copies(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if not ctx.hook.active:
            return None, None, None, gradient[: len(x)]
        return None, None, None, ctx.hook.collect(ctx.trace, ctx.root(), x, gradient)


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hook: RootHook, trace: Trace, output: Tensor) -> Tensor:
        ctx.hook, ctx.trace = hook, trace
        ctx.takes_weights = True  # read by nontarget(...) from output.grad_fn
        ctx.save_for_backward(output)
        return output[: trace.samples].clone()

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> Any:
        (output,) = ctx.saved_tensors
        samples = ctx.trace.samples
        if not ctx.hook.active:
            ctx.trace.restart(None)
            return None, None, torch.cat([seed, seed.new_zeros(output.shape[0] - samples, *seed.shape[1:])])
        weights = seed if ctx.hook.weights_given else output_weights(seed, output[:samples])
        return None, None, ctx.hook.seeds(ctx.trace, weights, output)
