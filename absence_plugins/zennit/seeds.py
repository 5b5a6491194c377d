"""From Zennit's ``attr_output`` to the explained output, and ``nontarget(...)``, an ``attr_output`` of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from zennit.attribution import Attributor, Occlusion, identity
from zennit.core import BasicHook
from zennit.core import Identity as HookedInput

from absence_plugins.core.choices import Choice, Nontarget, check_word, choose
from absence_plugins.core.outputs import Named, Output, as_columns
from absence_plugins.core.targets import Target
from absence_plugins.zennit.pairing import output_weights
from absence_plugins.zennit.root_hook import hooks_on
from absence_plugins.zennit.scores import weighted

_ASKING: ContextVar[Attributor | None] = ContextVar("asking", default=None)  # the Absence* attributor that runs
ELEMENTWISE = ("relu", "threshold", "hardtanh", "elu", "softplus", "sigmoid", "tanh", "silu", "mish", "hardswish")


def nontarget(target: Target, select: Nontarget = "runner_up") -> NontargetOutput:
    """An ``attr_output`` for any Zennit attributor: the output that the input does *not* belong to.

    Content of x that holds the non-target down is what its unit encodes as absent: negative relevance. The seed is
    the right one for the composite at hand: the non-target's value for rules that divide by outputs (LRP: a seed of 1
    would flip the map's sign where the value is negative) and for Occlusion, 1 for gradients and ``Absence*``
    composites.

    Source: docs/concepts.md, docs/from-zennit.md.

    Args:
        target: the class of the inputs: an index, or one per sample [B]. Of outputs [B, K, H, W] it means the sum of
            its logits over the image; a tuple (class, y, x) one pixel.
        select: "runner_up" (the highest other output), "others" (their mean), a class, one per sample [B], or
            ``f(outputs, target) -> [B]``; "target" (the target itself), "negated" (minus the target) or "margin" (the
            target minus its runner-up). Chosen from the outputs that the attributor hands over; within SmoothGrad
            and IntegratedGradients use the ``Absence*`` attributors, which choose once, on the real input.

    Raises:
        ValueError: when called: softmax outputs, classes that do not exist, a non-target that is the target, another
            output of a model with one; an explained output that is not finite.

    >>> outputs = torch.tensor([[3.0, 1.0, 2.0]])
    >>> nontarget(0)(outputs)
    tensor([[0., 0., 2.]])
    >>> nontarget(0, select=1)(outputs)
    tensor([[0., 1., 0.]])
    """
    return NontargetOutput(target, select)


class NontargetOutput:
    """What :func:`nontarget` returns: a function of the outputs [B, K, ...] to a seed of the same shape."""

    def __init__(self, target: Target, select: Nontarget) -> None:
        check_word(select, "select")
        self.target, self.select = target, select

    def __repr__(self) -> str:
        return f"nontarget({self.target!r}, select={self.select!r})"

    def __call__(self, output: Tensor) -> Tensor:
        """The seed of the outputs [B, K, ...]."""
        weights = self.weights(output)
        return weighted(weights, output.detach()) if self._wants_value(output) else weights

    def weights(self, output: Tensor) -> Tensor:
        """The non-target as weights on the outputs [B, K, ...]."""
        values = output.detach()
        return choice_weights(choose(values, self.target, self.select), values)

    @staticmethod
    def _wants_value(output: Tensor) -> bool:
        """Whether the attributor turns the outputs' values into relevance: Occlusion, or rules that divide by
        outputs.
        """
        if getattr(output.grad_fn, "takes_weights", False):
            return False
        asking = _ASKING.get()
        if asking is not None:
            return isinstance(asking, Occlusion) or divides_by_outputs(asking.model)
        return output.grad_fn is None or was_made_by_rules(output)


@contextmanager
def asking(attributor: Any) -> Iterator[None]:
    """In this block the attributor is the one that calls its attr_output."""
    token = _ASKING.set(attributor)
    try:
        yield
    finally:
        _ASKING.reset(token)


def was_made_by_rules(output: Tensor) -> bool:
    """Whether the outputs come from a model on which rules of Zennit sit, for more than its activations.

    A rule leads its module's input, in Zennit 1.0 its output too, through an identity (and a copy), which stands in the
    graph of the outputs. Zennit's rules on activations alone (guided backpropagation) change gradients, and divide by
    nothing.
    """
    pending: list[tuple[Any, tuple[str, ...]]] = [(output.grad_fn, ())]
    seen: set[Any] = set()
    while pending:
        node, behind = pending.pop()
        if node is None or (node, behind) in seen:
            continue
        seen.add((node, behind))
        if _is_hooked(node) and not _is_output_of_activation(node):
            consumer = next((name for name in reversed(behind) if not name.startswith("Clone")), "")
            if not _is_elementwise(consumer):
                return True
        name = node.name()
        # a copy hides which operation comes behind it
        following = (*behind[-1:], name) if name.startswith("Clone") else (name,)
        pending += [(one, following) for one, _ in node.next_functions]
    return False


def _is_hooked(node: Any) -> bool:
    """Whether a node of the graph is the identity of a rule."""
    return getattr(type(node), "_forward_cls", None) is HookedInput


def _is_elementwise(name: str) -> bool:
    return any(word in name.lower() for word in ELEMENTWISE)


def _is_output_of_activation(node: Any) -> bool:
    """Whether the identity stands behind an activation that has one in front of it, too (Zennit 1.0)."""
    activation = _before(node)
    return activation is not None and _is_elementwise(activation.name()) and _is_hooked(_before(activation))


def _before(node: Any) -> Any:
    """The node in front of one, copies left out; None at a leaf."""
    found = node.next_functions[0][0] if node.next_functions else None
    while found is not None and found.name().startswith("Clone"):
        found = found.next_functions[0][0]
    return found


def divides_by_outputs(model: nn.Module) -> bool:
    """Whether rules on the model turn the output's value into relevance (LRP), rather than passing gradients on."""
    return any(isinstance(hook, BasicHook) for hook in hooks_on(model))


def choice_weights(choice: Choice, outputs: Tensor) -> Tensor:
    """A choice as weights on the outputs: [B, K, ...], zero but for what is explained."""
    columns = as_columns(outputs)
    weights = torch.zeros_like(columns)
    index = choice.index.tolist() if isinstance(choice.index, Tensor) else choice.index
    for row, entry in enumerate(index):
        first, *rest = entry if isinstance(entry, tuple) else (entry,)
        place = (row, slice(None), *rest)
        if choice.weights is None:
            weights[(row, first, *rest)] = 1
        else:
            own = choice.weights[first].to(weights)
            weights[place] = own.reshape(-1, *[1] * (weights[place].dim() - 1))
    return weights.view_as(outputs)


def asked_weights(attr_output_fn: Any, outputs: Tensor) -> Tensor:
    """What an ``attr_output`` asks for, for every sample: weights of the shape of the outputs.

    Raises:
        TypeError: it gives no tensor.
        ValueError: it gives another shape, or asks for nothing.
    """
    if attr_output_fn is identity:
        return torch.ones_like(outputs)
    if isinstance(attr_output_fn, NontargetOutput):
        return attr_output_fn.weights(outputs)
    seed = attr_output_fn(outputs)
    if not isinstance(seed, Tensor):
        raise TypeError(f"attr_output must be a tensor, or a function that returns one, got {type(seed).__name__}")
    if outputs.dim() > 3 and seed.dim() == 2 and seed.shape[1] == outputs.shape[1]:
        seed = seed.reshape(*seed.shape, *[1] * (outputs.dim() - 2))  # classes of maps: their sums over the image
    try:
        seed = seed.detach().to(outputs).expand_as(outputs)
    except RuntimeError:
        raise ValueError(
            f"attr_output of shape {tuple(seed.shape)} does not fit outputs of shape {tuple(outputs.shape)}; "
            "pass one row for all samples, or one per sample"
        ) from None
    weights = output_weights(seed, outputs)
    empty = (weights == 0).reshape(len(weights), -1).all(1)
    if bool(empty.any()):
        raise ValueError(
            f"attr_output names no output for sample {int(empty.nonzero()[0])}: all its entries are 0; "
            "pass torch.eye(K)[[k]] for output k"
        )
    return weights


def is_single(outputs: Tensor) -> bool:
    """Whether there is one output z, whose negative is -z."""
    return outputs.dim() == 1 or outputs.shape[1:].numel() == 1


def chosen_weights(weights: Tensor, outputs: Tensor, nontarget: Nontarget) -> tuple[Tensor, Choice]:
    """From the target that the weights name to what is explained in its place: weights, and the choice behind them.

    Raises ValueError if the weights name several outputs.
    """
    if not is_single(outputs):
        choice = choose(outputs, named_target(weights, "a non-target"), nontarget)
        return choice_weights(choice, outputs), choice
    sign = weights.sign()  # the target is +z, or -z
    target = 0 if outputs.dim() < 3 else (0,) * (outputs.dim() - 1)
    choice = choose(outputs * sign, target, nontarget)
    return choice_weights(choice, outputs) * sign, choice


def explained_output(weights: Tensor, outputs: Tensor, choice: Choice | None) -> Output:
    """What the weights explain, to be said in words."""
    if choice is not None and not choice.single:
        return choice
    places = [_named_place(sample) for sample in weights]
    signs = set(weights[weights != 0].tolist())
    if None in places or signs not in ({1.0}, {-1.0}):
        return Named("a weighted sum of the outputs")
    return choose(outputs, places, "target" if signs == {1.0} else "negated")


def named_classes(weights: Tensor) -> Tensor | None:
    """The class [B] that each sample's weights name; None if they name several outputs (or there is but one)."""
    places = [_named_place(sample) for sample in weights]
    if is_single(weights) or None in places:
        return None
    classes = [place[0] if isinstance(place, tuple) else place for place in places]
    return torch.tensor(classes, device=weights.device)


def compared_classes(weights: Tensor, choice: Choice | None) -> tuple[Tensor | None, Tensor | None]:
    """What a ReferenceSet is asked for: the target's class, and the class to compare with if there is a non-target.

    For a single output z class 1 is that of +z, class 0 that of -z. Raises ValueError if no class is named.
    """
    if is_single(weights):
        explains_plus = (weights.reshape(len(weights), -1)[:, 0] > 0).long().cpu()
        is_negated = choice is not None and choice.kind == "negated"
        return 1 - explains_plus if is_negated else explains_plus, None
    if choice is not None:
        return choice.contrast()
    targets = named_target(weights, "a ReferenceSet (which takes its contrast from the target)")
    return torch.tensor([entry[0] if isinstance(entry, tuple) else entry for entry in targets]), None


def named_target(weights: Tensor, purpose: str) -> list[Any]:
    """The one output that each sample's weights name, as ``target`` for the choice of a non-target.

    Raises:
        ValueError: they name several.
    """
    targets: list[Any] = []
    for row, sample in enumerate(weights):
        place = _named_place(sample)
        if place is None:
            raise ValueError(
                f"attr_output names {int((sample != 0).sum())} outputs of sample {row}, but {purpose} needs one target "
                "per sample; pass torch.eye(K)[[k]]"
            )
        targets.append(place)
    return targets


def _named_place(sample: Tensor) -> Any:
    """The output [K, ...] that one sample's weights name: its index, its place, or a class for its sum over the image.

    None: several.
    """
    if sample.dim() == 0:
        return 0
    places = sample.nonzero()
    if len(places) == 1:
        place = places[0].tolist()
        return place[0] if len(place) == 1 else tuple(place)
    if sample.dim() > 2 and len(places) == sample[0].numel() and len(set(places[:, 0].tolist())) == 1:
        own = sample[places[0, 0]]
        return int(places[0, 0]) if bool((own == own.flatten()[0]).all()) else None
    return None
