"""x's graph, against which any number of references is compared: the lower-level entry, for adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import rewritten
from absence_plugins.core.module_calls import running_modules
from absence_plugins.core.precision import coarsest
from absence_plugins.core.pulling import pull_back
from absence_plugins.core.running import as_written
from absence_plugins.core.training import Draws, describe_training, find_drawing, find_training
from absence_plugins.relevance.graph import check_graph, last_reached
from absence_plugins.relevance.mode import RecordingMode
from absence_plugins.relevance.operation import RelevanceError
from absence_plugins.relevance.records import Memory
from absence_plugins.relevance.replay import ReplayMode
from absence_plugins.relevance.rules import RuleOf, as_epsilon, is_spread, rule_in_force
from absence_plugins.relevance.secants.redistribution import Redistribution
from absence_plugins.relevance.spreading import spread_to, support


@dataclass
class _Entry:
    """Where relevance is read: an input, what an embedding selects for an integer input, or a layer's output."""

    leaf: Tensor  # of x's graph
    source: Tensor | None = None  # the indices, of an embedding
    other: Tensor | None = None  # the value in r's pass

    @property
    def difference(self) -> Tensor:
        """x's value minus r's."""
        assert self.other is not None
        return self.leaf.detach() - self.other


class Comparison:
    """One graph of x; :meth:`against` runs a reference over it, :meth:`pull` gives the multipliers.

    ``forward`` is called with the inputs; what it returns is given back as :attr:`output`, with its graph.

    Args:
        forward: the model, or a closure around it; None: the caller runs it, in :meth:`recording` and
            :meth:`replaying`.
        inputs: tensors; those of floats get relevance, those of integers at the embedding that they index.
        fixed: positions of inputs that are constants, the same for x and r.
        model: whose modules name the places in messages and carry rules; by default ``forward`` where it is a module.
        rule: name of a module -> the redistribution for convolutions and linear layers inside it, None for Epsilon
            (the innermost module that has one counts; "epsilon" is Epsilon also inside of a module with another rule).
        last_rule: from the rule in force to that of the output layer, the last convolution or linear operation on the
            way to the output; by default Epsilon.
        layers: modules whose output gets relevance, too; of a pair (module, "input") its input.

    Raises:
        RelevanceError: the model holds an operation without an exact relevance of differences.

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.fill_(2.0)
    >>> comparison = Comparison(layer, [torch.ones(1, 2)])
    >>> _ = comparison.against([torch.tensor([[0.0, 3.0]])])
    >>> comparison.pull(comparison.output, torch.ones(1, 1)).inputs[0]  # of 2 (1 - 0) + 2 (1 - 3)
    Relevance of an entry: multiplier [[2.0, 2.0]], difference [[1.0, -2.0]]
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        forward: Callable[..., Any] | None,
        inputs: Sequence[Any],
        *,
        fixed: Collection[int] = (),
        model: nn.Module | None = None,
        rule: RuleOf | None = None,
        last_rule: Callable[[Redistribution], Redistribution | None] = as_epsilon,
        layers: Mapping[str, nn.Module | tuple[nn.Module, str]] | None = None,
    ) -> None:
        self.forward = forward
        self.model = forward if model is None else model
        _check_compiled(self.model)
        mixing = find_training(self.model, draws=False)
        if mixing:
            raise RelevanceError(describe_training(*mixing, "a sample has no relevance of its own"))
        self.layers = {
            name: layer if isinstance(layer, tuple) else (layer, "output") for name, layer in (layers or {}).items()
        }
        self.inputs = list(inputs)
        self._rule, self._last_rule = rule, last_rule
        self._memory = Memory()
        self._random = _RandomState(self.inputs)
        self._tensors = [value for value in self.inputs if isinstance(value, Tensor)]
        self._has_integers = any(isinstance(v, Tensor) and _is_index(v) for v in self.inputs)
        self._entries: list[_Entry | None] = [
            _Entry(value.detach().clone().requires_grad_()) if _has_gradient(value) and index not in fixed else None
            for index, value in enumerate(self.inputs)
        ]
        self._embedded: list[_Entry] = []
        self._kept: dict[str, list[_Entry]] = {name: [] for name in self.layers}
        self.output: Any = None
        if forward is not None:
            with self._random.again(), Draws(self._tensors) as draws, self.recording() as values:
                output = forward(*values)
            if draws.happened:
                self._check_drawing(forward)
            self.explain(output)

    def _check_drawing(self, forward: Callable[..., Any]) -> None:
        """Reject a module in training mode that draws at random. In evaluation mode both passes draw the same."""
        values = [value.clone() if isinstance(value, Tensor) else value for value in self.inputs]
        drawing = find_drawing(self.model, lambda: forward(*values), self._tensors)
        if drawing and drawing[1].training:
            raise RelevanceError(describe_training(*drawing, "its relevance would be that of one draw"))

    # -- the two passes ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self, *, is_running: bool = False) -> Iterator[list[Any]]:
        """x's pass: inside, the model is run once on the values given here. Then :meth:`explain` takes its output.

        ``is_running``: the model is entered already, as in a forward pre-hook of its own.
        """
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(running_modules(self.model, is_running=is_running))
            _enter_pass(stack)
            for name, (module, side) in self.layers.items():
                stack.enter_context(rewritten(module, self._keeping(name), side=side))
            values = [
                value if entry is None else entry.leaf.clone()
                for value, entry in zip(self.inputs, self._entries, strict=True)
            ]
            rule = self._rule  # the mode must not hold this object: cycles keep memory
            self._mode = stack.enter_context(
                RecordingMode(
                    self._memory,
                    lambda: running[-1] if running else "",
                    lambda: rule_in_force(rule, running),
                    self._embed if self._has_integers else None,
                )
            )
            yield values

    def explain(self, output: Any) -> None:
        """Take what the model put out, with its graph: the last weighted operation on the way to it is its output
        layer.
        """
        for name, entries in self._kept.items():
            if len(entries) != 1:
                raise ValueError(f"layer {name!r} runs {len(entries)} times in a forward; its relevance needs one call")
        self.output = output
        if self._rule is None:
            return
        last = last_reached(output, self._mode.weighted)
        if last is not None and last.rule is not None:
            last.rule = self._last_rule(last.rule)

    @property
    def coarsest(self) -> torch.dtype:
        """The least exact type of numbers that the input passes through (some models compute in float32 inside)."""
        return coarsest(self._mode.dtypes)

    @torch.inference_mode(False)
    def against(self, reference: Sequence[Any]) -> Any:
        """Run a reference over x's graph and return the model's output for it.

        Raises:
            RelevanceError: the two passes do not run the same operations, or differ in what no gradient sees.
        """
        assert self.forward is not None
        with self.replaying(reference) as values:
            return self.forward(*values)

    @contextlib.contextmanager
    def replaying(self, reference: Sequence[Any]) -> Iterator[list[Any]]:
        """r's pass: inside, the model is run once on the values given here. Raises at its end as :meth:`against`."""
        others: list[Tensor] = []
        seen: dict[str, Tensor] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._random.again())
            _enter_pass(stack)
            for name, (module, side) in self.layers.items():
                stack.enter_context(rewritten(module, _keep_into(seen, name), side=side))
            values: list[Any] = []
            for value, entry in zip(reference, self._entries, strict=True):
                if entry is None:
                    values.append(value)
                    continue
                entry.other = value.detach()
                values.append(value.detach().clone().requires_grad_().clone())
            mode = stack.enter_context(
                ReplayMode(
                    self._memory,
                    lambda: "",
                    self._mode.records,
                    self._mode.decisions,
                    _embed_into(others) if self._has_integers else None,
                )
            )
            yield values
        mode.finish()
        self._reference = list(reference)
        if len(others) != len(self._embedded):
            raise RelevanceError("the model calls another number of embeddings on x than on the reference")
        for entry, other in zip(self._embedded, others, strict=True):
            entry.other = other
        for name, (entry,) in self._kept.items():
            entry.other = seen[name]

    @torch.inference_mode(False)
    def pull(self, output: Tensor, seed: Tensor) -> Pulled:
        """The multipliers of inputs and layers for a seed on an output of x's graph (a tensor of its shape).

        Raises:
            RelevanceError: the output does not depend on the inputs, or the graph holds foreign nodes.
        """
        entries = [entry for entry in self._entries if entry is not None] + self._embedded
        kept = [entry for (entry,) in self._kept.values()]
        if not check_graph(output, [entry.leaf for entry in entries]):
            raise RelevanceError(
                "the output does not depend on the input: the model detaches it, or runs under torch.no_grad()"
            )
        targets = [entry.leaf for entry in entries + kept]
        ruled = [record.pull for record in self._mode.records if hasattr(record.pull, "absorbed")]
        for rule in ruled:
            vars(rule).update(spread=None, absorbed=None)  # of the call before
        spreads = [record for record in self._mode.records if is_spread(record.rule)]
        for record in spreads:
            support(record, [entry.leaf for entry in entries], [node for node, _ in self._mode.weighted])
        multipliers = pull_back([output], targets, [seed], retain_graph=True)
        found = {
            id(entry): EntryRelevance(torch.zeros_like(entry.leaf) if m is None else m, entry.difference)
            for entry, m in zip(entries + kept, multipliers, strict=True)
        }
        for record in spreads:
            for entry, extra in zip(entries, spread_to(record, [entry.leaf for entry in entries]), strict=True):
                if extra is not None:
                    found[id(entry)].relevance = found[id(entry)].relevance + extra
        return Pulled(
            [self._of_input(index, found) for index in range(len(self.inputs))],
            {name: found[id(entry)] for name, (entry,) in self._kept.items()},
            [rule.absorbed for rule in ruled if rule.absorbed is not None],
        )

    # -- where relevance is read ---------------------------------------------------------------------------------------

    def values_at(self, layer: str) -> tuple[Tensor, Tensor]:
        """What one of ``layers`` puts out on x and on the last reference."""
        (entry,) = self._kept[layer]
        assert entry.other is not None
        return entry.leaf.detach(), entry.other

    def leaf_at(self, layer: str) -> Tensor:
        """The place of one of ``layers`` in x's graph, from which :meth:`pull` can start."""
        return self._kept[layer][0].leaf

    def _of_input(self, index: int, found: dict[int, EntryRelevance]) -> EntryRelevance | None:
        entry = self._entries[index]
        if entry is not None:
            return found[id(entry)]
        value = self.inputs[index]
        if not isinstance(value, Tensor) or not _is_index(value):
            return None
        mine = [found[id(e)] for e in self._embedded if self._source(e) == index]
        if not mine:
            return None
        if any(one.multiplier.shape != mine[0].multiplier.shape for one in mine):
            raise RelevanceError(
                f"input {index} indexes embeddings of several shapes; ask for layers=[...] with the embedding modules"
            )
        if len(mine) == 1:
            return mine[0]
        relevance = sum((one.relevance for one in mine[1:]), mine[0].relevance)
        return EntryRelevance(mine[0].multiplier, mine[0].difference, relevance)

    def _source(self, entry: _Entry) -> int | None:
        """The integer input that an embedding's indices are, or come from."""
        assert entry.source is not None
        storages = [_storage(value) if isinstance(value, Tensor) else None for value in self.inputs]
        if _storage(entry.source) in storages:
            return storages.index(_storage(entry.source))
        if not bool(entry.difference.any()):
            return None
        changed = [
            index
            for index, value in enumerate(self.inputs)
            if isinstance(value, Tensor) and _is_index(value) and not torch.equal(value, self._reference[index])
        ]
        if len(changed) != 1:
            raise RelevanceError("an embedding is indexed by values computed from several inputs; pass embedded inputs")
        return changed[0]

    def _embed(self, output: Tensor, indices: Any) -> Tensor:
        leaf = output.detach().requires_grad_()
        self._embedded.append(_Entry(leaf, indices))
        return leaf.clone()

    def _keeping(self, name: str) -> Callable[[Any], Any]:
        def keep(output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.requires_grad:
                raise ValueError(f"layer {name!r} must put out a tensor that depends on the input")
            self._kept[name].append(_Entry(output))
            return output.clone()

        return keep


class EntryRelevance:
    """Multiplier m, difference d = a(x) - a(r) and relevance m d at one place of the graph."""

    def __init__(self, multiplier: Tensor, difference: Tensor, relevance: Tensor | None = None) -> None:
        self.multiplier, self.difference = multiplier, difference
        self.relevance = (multiplier * difference).real if relevance is None else relevance

    def __repr__(self) -> str:
        return (
            f"Relevance of an entry: multiplier {self.multiplier.tolist()}, difference {self.difference.tolist()}"
            if self.multiplier.numel() <= 8
            else f"Relevance of an entry of shape {tuple(self.multiplier.shape)}"
        )


@dataclass(frozen=True)
class Pulled:
    """What :meth:`Comparison.pull` found: per input (None where an input has no relevance), and per layer.

    ``absorbed`` is what stabilizers took away, per layer that has one: relevance of its outputs.
    """

    inputs: list[EntryRelevance | None]
    layers: dict[str, EntryRelevance]
    absorbed: list[Tensor]


class _RandomState:
    """The global random state of the first pass, which every pass starts from."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        self.devices = sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})
        self.state = torch.get_rng_state()
        self.states = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers, and leave the state of the caller as it is."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.state)
            for device, state in zip(self.devices, self.states, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


def _check_compiled(model: Any) -> None:
    """Raises RelevanceError for a compiled module on a torch that cannot run it as it was written (before 2.6)."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    if not hasattr(torch.compiler, "set_stance") and any(hasattr(module, "_orig_mod") for module in modules):
        raise RelevanceError(
            f"torch {torch.__version__} cannot run a compiled model operation by operation; pass the model that was "
            "given to torch.compile (compiled._orig_mod), or use torch 2.6 or newer"
        )


def _enter_pass(stack: contextlib.ExitStack) -> None:
    """Gradients on, compiled models as they were written."""
    stack.enter_context(torch.enable_grad())
    stack.enter_context(as_written())


def _keep_into(seen: dict[str, Tensor], name: str) -> Callable[[Any], Any]:
    def keep(output: Any) -> Any:
        seen[name] = output.detach()
        return output.clone()

    return keep


def _embed_into(others: list[Tensor]) -> Callable[[Tensor, Any], Tensor]:
    def embed(output: Tensor, _indices: Any) -> Tensor:
        others.append(output.detach())
        return output.detach().requires_grad_().clone()

    return embed


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _is_index(value: Tensor) -> bool:
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
