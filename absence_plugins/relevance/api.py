"""The relevance of differences of any PyTorch model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.precision import warn_unresolved
from absence_plugins.core.turns import working_on
from absence_plugins.relevance.asking import ask
from absence_plugins.relevance.comparison import EntryRelevance, Pulled
from absence_plugins.relevance.result import Relevance
from absence_plugins.relevance.selection import Selection
from absence_plugins.relevance.structure import Structure


@torch.inference_mode(False)
def relevance(
    model: Callable[..., Any],
    x: Any,
    reference: Any,
    output: Selection = None,
    *,
    rule: Any = "epsilon",
    layers: Sequence[str | nn.Module] = (),
) -> Relevance:
    """Divide u(x) - u(r) exactly among the inputs, through every operation of the model's graph.

    R_i = m_i (x_i - r_i), where the multiplier m is pulled back from u through secants: for an operation y = f(a) a
    linear map S with f(a(x)) - f(a(r)) = S (a(x) - a(r)) exactly, symmetric in x and r. So sum_i R_i = u(x) - u(r)
    (conservation) and R(x; r) = -R(r; x) (antisymmetry), both to rounding and on any network.

    Source: docs/relevance.md; discrete gradients of numerical analysis, DeepLIFT's Rescale rule for Epsilon.

    Args:
        model: a module or a callable, in evaluation mode. It is neither changed nor copied.
        x: a tensor, a tuple (positional inputs) or a dictionary (keyword inputs). Integers that index an embedding get
            their relevance at the embedding's output.
        reference: the same structure; a number for constant references; a leading axis [R, ...] or a list for several,
            which share one graph of x.
        output: None (a single output), a class index (of outputs [B, K, H, W] the sum of its logits over the image), a
            tuple of indices, one index per sample (tensor or list),
            weights shaped like the outputs, a :class:`~absence_plugins.core.outputs.Output`, or ``f(model output) ->
            [B]``. Where the model ends in a softmax or sigmoid, these are of the logits in front of it (with a
            warning); a function gets what the model returns.
        rule: "epsilon", or "gamma", "zplus", "alpha_beta" for convolutions and linear layers except the last;
            "lower_gamma",
            "lower_zplus": for the convolutions in the lower part of the network (recommended for deep ones, see
            docs/relevance.md); or a function from the name of a module to the rule inside it.
        layers: names of modules, or modules, whose output gets relevance: ``result.at(name)``.

    Returns:
        Relevance: ``attribution`` in the structure of x. **Sign**: positive raises u on x compared with the reference,
        negative is content of x (or missing content of r) that suppresses it.

    Raises:
        RelevanceError: the model holds an operation without an exact relevance of differences, runs other operations
            on the reference, or the sum is not u(x) - u(r); the message names the module and the remedy.
        ValueError, TypeError: inputs, references or ``output`` do not fit; the explained output is not finite.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> for layer, weight in zip((net[0], net[2]), ([[1.0, 0.0], [0.0, 1.0]], [[2.0, -3.0]])):
    ...     layer.weight.data = torch.tensor(weight)
    >>> net[0].bias.data.zero_()
    tensor([0., 0.])
    >>> relevance(net, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).attribution  # 2 present, 3 missing
    tensor([[2., 3.]])
    """
    with working_on(model):
        asked = ask(model, x, reference, output, rule=rule, layers=_named_layers(model, layers))
        answers = asked.answers()
        on_references = torch.stack([answer.output for answer in answers])
        warn_unresolved(asked.u, on_references.T, asked.u.abs(), asked.comparison.coarsest, level=3)
        found = [answer.pulled for answer in answers]
        errors = torch.stack([answer.error for answer in answers])
        return build_result(asked.structure, found, asked.u, on_references, errors)


def build_result(structure: Structure, found: list[Pulled], u: Tensor, outputs: Tensor, errors: Tensor) -> Relevance:
    """What was pulled back from u [B] against each reference, with u(r) [R, B] and the errors of the sums [R, B]."""

    def stacked(read: Callable[[EntryRelevance], Tensor]) -> list[Tensor | None]:
        columns = zip(*(pulled.inputs for pulled in found), strict=True)
        return [
            None if any(entry is None for entry in column) else torch.stack([read(entry) for entry in column if entry])
            for column in columns
        ]

    relevances = stacked(lambda entry: entry.relevance)
    return Relevance(
        attribution=structure.build([None if value is None else value.mean(0) for value in relevances]),
        per_reference=structure.build(relevances),
        output=u,
        reference_output=outputs,
        conservation_error=errors,
        layers={name: torch.stack([p.layers[name].relevance for p in found]) for name in found[0].layers},
        multipliers=structure.build(stacked(lambda entry: entry.multiplier)),
    )


def _named_layers(model: Any, layers: Sequence[str | nn.Module]) -> dict[str, nn.Module]:
    if not layers:
        return {}
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    names = {id(module): name for name, module in reversed(modules.items())}
    found = {}
    for layer in layers:
        name = layer if isinstance(layer, str) else names.get(id(layer))
        if name is None or name not in modules:
            raise ValueError(f"layer {layer!r} is no module of the model")
        found[name] = modules[name]
    return found
