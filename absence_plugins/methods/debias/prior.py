"""The attribution prior: what a training loss adds so that a masked artefact explains neither target nor non-target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from absence_plugins.core.choices import Nontarget, choose_nontarget
from absence_plugins.core.combining import combine, others_weights
from absence_plugins.core.endings import LastOperation
from absence_plugins.core.outputs import as_columns, check_explained, check_logits, select
from absence_plugins.core.results import Result
from absence_plugins.core.scores import announce
from absence_plugins.core.table import Grid
from absence_plugins.core.turns import working_on
from absence_plugins.methods.debias.attribution import Normalize, masked_attribution, twice_differentiable
from absence_plugins.methods.debias.checks import (
    check_classes,
    check_given,
    check_inputs,
    check_shared,
    find_logits,
    fitting,
)
from absence_plugins.methods.debias.trial import try_second_derivatives, watch_gradients

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Mode = Literal["presence", "absence", "both"]


@dataclass(frozen=True, eq=False, repr=False)
class Parts(Result):
    """What the last call of a prior measured, sample by sample, detached.

    Attributes:
        presence: P of the target [N]; None with ``mode="absence"``.
        absence: P of the non-target [N]; None with ``mode="presence"``.
        value: what was averaged over the batch [N].
        nontargets: class indices [N]; None where the non-target is no single class, or was not asked for; -1 for a
            sample without a mask that the prior's own forward left out.

    The sign: every part is >= 0. 0 says that nothing inside the mask moves this output.
    """

    presence: Tensor | None
    absence: Tensor | None
    value: Tensor
    nontargets: Tensor | None = None

    def __repr__(self) -> str:
        named = {"presence": self.presence, "absence": self.absence, "value": self.value}
        means = ", ".join(f"{name} {float(part.mean()):.3g}" for name, part in named.items() if part is not None)
        return f"Parts({len(self.value)} samples, mean {means})"

    def _heading(self) -> str:
        return f"Parts of the attribution prior, {len(self.value)} samples"

    def _means(self) -> dict[str, float]:
        named = {"presence (the target)": self.presence, "absence (the non-target)": self.absence, "value": self.value}
        return {name: float(part.mean()) for name, part in named.items() if part is not None}

    def _grid(self) -> Grid:
        rows = [(name, f"{mean:.4g}") for name, mean in self._means().items()]
        foot = "how much the masked content moves each output; 0: not at all"
        return Grid((("part", "mean over the samples"), *rows), foot=(foot,))

    def figure(self, ax: Any = None) -> Figure:
        """The means as bars; needs matplotlib. ax: axes to draw into."""
        from absence_plugins.report.plots.palette import GRAY
        from absence_plugins.report.plots.placing import draw_bars

        means = self._means()
        label = "mean influence of the masked content"
        return draw_bars(ax, list(means), list(means.values()), label, colors=[GRAY] * len(means))

    def to_dict(self) -> dict[str, list[float] | list[int] | None]:
        """Plain lists, ready for JSON."""
        return {name: None if part is None else part.tolist() for name, part in vars(self).items()}


class AttributionPrior(nn.Module):
    """A training loss that is large where a masked artefact moves the target, or the non-target, of a sample.

        P_o      = sum(abs(x * d f_o / d x), over channels and pixels, times m) / (sum m + 1e-5)
        presence = P_target,   absence = P_nontarget,   both = (P_target + P_nontarget) / 2

    averaged over the batch. Use: ``logits, penalty = prior.with_logits(x, y, mask)``, then
    ``loss = criterion(logits, y) + weight * penalty``; or add ``weight * prior(x, y, mask)`` to any loss. The target's
    map alone leaves a loophole: the network may keep the artefact as what the *other* class's unit encodes as absent.

    Source: Hesse et al., ICML 2026, section 6 (two classes). For more classes the non-target is a choice.

    The model is *not* a submodule: it is in neither ``parameters()``, ``state_dict()`` nor ``to()`` of the prior, so
    that an optimizer over both counts nothing twice. A copy or a pickle of the prior holds a copy of the model; copy
    or pickle both in one object to keep them together.

    Args:
        model: inputs [N, C, ...] -> logits [N, K], or [N] or [N, 1] for one logit z; as a tensor, or in a tuple,
            dictionary or dataclass (Hugging Face's ``ModelOutput``). It runs in the mode it is in.
        mode: "presence", "absence" or "both".
        nontarget: "runner_up" (highest-scoring other class), "others" (mean of all others), a class, one class per
            sample, a callable ``(logits, y) -> [N]``; or "mixture": all others at once through one random signed
            mixture f = sum_k s_k f_k, s_k = +-1, with squares in place of magnitudes in both parts, as
            E[(x df/dx)^2] = sum_k (x df_k/dx)^2.
        normalize: "mask" (published), "share" (the share of the attribution that is inside), or None (the plain sum).
        seed: of the signs of the mixture; every call draws new ones. Unused otherwise.

    With one logit z the target is z (y = 1) or -z (y = 0) and the non-target the other: the magnitudes are equal, so
    the modes are, too.

    Sign: >= 0. The gradient shrinks the influence of the masked content on an output, in whichever direction it goes.

    Raises:
        TypeError: a model that is no ``nn.Module``.
        ValueError: an unknown mode or normalization.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    >>> prior = AttributionPrior(net, mode="both", normalize=None)
    >>> x, y, mask = torch.tensor([[1.0, 10.0]]), torch.tensor([0]), torch.tensor([[1.0, 0.0]])
    >>> prior(x, y, mask).item()  # (|1 * 1| + |1 * 3|) / 2
    2.0
    >>> prior.last
    Parts(1 samples, mean presence 1, absence 3, value 2)
    """

    def __init__(
        self,
        model: nn.Module,
        mode: Mode = "both",
        *,
        nontarget: Nontarget | Literal["mixture"] = "runner_up",
        normalize: Normalize = "mask",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r} is not known: use 'presence', 'absence' or 'both'")
        if normalize not in ("mask", "share", None):
            raise ValueError(f"normalize={normalize!r} is not known: use 'mask', 'share' or None")
        if isinstance(nontarget, str) and nontarget not in ("runner_up", "others", "mixture"):
            raise ValueError(
                f"nontarget={nontarget!r} is not known: use 'runner_up', 'others', 'mixture', a class index, a tensor "
                "or a callable"
            )
        self._model = (model,)  # inside a tuple nn.Module does not register it
        self.mode, self.nontarget, self.normalize, self.seed = mode, nontarget, normalize, seed
        self.draws = 0
        self.last: Parts | None = None
        self._is_checked = False
        self._ending = ""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":  # nn.Module would register it, and the property would keep showing the former one
            raise AttributeError("a prior keeps its model: make a new AttributionPrior")
        super().__setattr__(name, value)

    @property
    def model(self) -> nn.Module:
        """The model whose attribution is penalized."""
        return self._model[0]

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"{type(self.model).__name__}, mode={self.mode!r}, nontarget={self.nontarget!r}, normalize={self.normalize!r}"

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, logits: Any = None) -> Tensor:
        """The prior of a batch, a tensor without axes that can be differentiated; :attr:`last` holds it per sample.

        Without ``logits`` the model runs once more, on the samples that carry something masked (on all where batch norm
        is in training mode), in a way that leaves no trace: batch norm's statistics and the random state are as before.
        With ``logits = model(x)``, whatever the model returns, that forward is shared; then ``x.requires_grad_()`` must
        come before it, and attention must run under :func:`twice_differentiable`. :meth:`with_logits` does all this and
        costs least. Under ``torch.no_grad()`` (and without ``logits``) the value alone is computed.

        x: floating point [N, C, ...], in which 0 means no content; y: class indices [N]; mask: [N, 1, ...], [N, ...]
        or as x, of booleans or in [0, 1] (1: must not matter). The mean over the batch makes the mean over equal parts
        of a batch (gradient accumulation) the same number where samples do not see each other.

        Raises:
            TypeError: x, y or mask of another type.
            ValueError: shapes that do not fit, a class that does not exist, a mask outside [0, 1], logits without a
                graph back to x or through a fused attention kernel, logits that are probabilities.
        """
        mask = self._check(x, y, mask)
        with working_on(self.model):
            rows, every_y = None, y
            with torch.enable_grad():
                if logits is None:
                    rows = self._carriers(mask)
                    if rows is not None:
                        x, y, mask = x[rows], y.to(x.device)[rows], mask[rows]
                    x = x if x.requires_grad else x.detach().requires_grad_()
                    scores = self._own_logits(x)
                    self._announce(4)
                else:
                    scores = find_logits(logits, x)
                    check_shared(scores, x)
                    if not self._is_checked:
                        check_given(scores)
            value = self._measure(scores, x, y, every_y, mask)
            return self._guard(value if rows is None else self._spread(value, rows), scores, x)

    def with_logits(self, x: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of ``model(x)``, [N, K], and the prior of the batch, from one forward: the cheapest training step.

        Of a model that ends in a softmax, log-softmax or sigmoid, what is returned is what the model returns, for your
        criterion; the prior is that of the logits in front of it, and one ``AbsenceWarning`` says so.

        The model runs as in ``model(x)``: batch norm's statistics and the random state move. Where samples do not see
        each other, those with something masked and the others go through it one after the other, as only the former
        need second derivatives; the numbers are those of ``prior(x, y, mask, logits=model(x))``. Modules that look at
        the whole batch, batch norm in training mode apart (it is noticed, and the batch kept in one piece), need
        ``logits=``.

        x, y, mask: as in :meth:`forward`; ``x`` need not require gradients, attention takes the right kernel by itself.
        Raises what :meth:`forward` raises.

        >>> net = nn.Linear(2, 2, bias=False)
        >>> net.weight.data = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
        >>> x, mask = torch.tensor([[1.0, 10.0], [2.0, 5.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        >>> logits, penalty = AttributionPrior(net, normalize=None).with_logits(x, torch.tensor([0, 1]), mask)
        >>> logits.tolist(), penalty.item()  # (|1 * 1| + |1 * 3|) / 2, and 0 for the sample without a mask
        ([[21.0, -37.0], [12.0, -14.0]], 1.0)
        """
        mask = self._check(x, y, mask)
        with working_on(self.model):
            rows = self._carriers(mask)
            with torch.enable_grad():
                leaf = x if rows is None else x[rows]
                leaf = leaf if leaf.requires_grad else leaf.detach().requires_grad_()
                with twice_differentiable():
                    # a copy: the first layer may work in place
                    logits, shown = self._read(lambda: self.model(leaf.clone()), leaf)
                    self._announce(2)
            if rows is None:
                penalty = self._measure(shown, leaf, y, y, mask)
            else:
                rest = x[~rows]
                logits = torch.cat([logits, find_logits(self.model(rest), rest)])
                logits = logits[torch.cat([rows.nonzero(), (~rows).nonzero()]).flatten().argsort()]
                penalty = self._spread(self._measure(shown, leaf, y.to(x.device)[rows], y, mask[rows]), rows)
            return (logits if torch.is_grad_enabled() else logits.detach()), self._guard(penalty, shown, leaf)

    def _guard(self, penalty: Tensor, logits: Tensor, x: Tensor) -> Tensor:
        """A penalty whose gradient is tried once, and looked at in every backward pass."""
        if not self._is_checked:  # once: every look at values waits for the device
            try_second_derivatives(penalty, logits, self.model, self._own_logits, x)
            self._is_checked = True
        watch_gradients(penalty, self.model, self._own_logits, x)
        return penalty

    def _check(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """The mask as numbers with the axes of x."""
        if torch.is_inference_mode_enabled():
            raise ValueError("a prior needs gradients, which inference mode rules out: use torch.no_grad() instead")
        check_inputs(x, y)
        return fitting(mask, x).to(torch.promote_types(x.dtype, torch.float32))

    def _measure(self, logits: Tensor, x: Tensor, y: Tensor, every_y: Tensor, mask: Tensor) -> Tensor:
        """The prior of samples whose logits are known; ``every_y`` are the classes of the whole batch, to be
        checked.
        """
        with torch.enable_grad():
            logits = as_columns(logits).to(torch.promote_types(logits.dtype, torch.float32))
        if not self._is_checked:
            check_logits(logits.detach())
        check_classes(every_y, logits.shape[1])
        return self._value(logits, x, y.to(x.device).long(), mask)

    def _carriers(self, mask: Tensor) -> Tensor | None:
        """Which samples [N] carry something masked, if the others (whose part is 0) can be left out of the own forward.

        Not where samples see each other (batch norm in training mode, or without statistics), nor where the draws go by
        the batch.
        """
        norms = (m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        sees_batch = any(norm.training or norm.running_mean is None for norm in norms)
        by_batch = self.nontarget is not None and not isinstance(self.nontarget, (str, int))
        if sees_batch or by_batch or self.nontarget == "mixture":
            return None
        carries = mask.flatten(1).any(1)
        carries[0] |= ~carries.any()  # one sample at least, so that the result has a graph
        return None if bool(carries.all()) else carries

    def _spread(self, value: Tensor, rows: Tensor) -> Tensor:
        """The mean over the whole batch, and :attr:`last` for all of its samples."""

        def whole(part: Tensor | None, empty: int = 0) -> Tensor | None:
            if part is None:
                return None
            full = part.new_full((len(rows),), empty)
            full[rows] = part
            return full

        last = self.last
        assert last is not None
        everyone = whole(last.value)
        assert everyone is not None
        self.last = Parts(whole(last.presence), whole(last.absence), everyone, whole(last.nontargets, -1))
        return value * (int(rows.sum()) / len(rows))

    def _value(self, logits: Tensor, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        square = isinstance(self.nontarget, str) and self.nontarget == "mixture"
        single = logits.shape[1] == 1
        presence = absence = nontargets = None
        with torch.enable_grad():
            target = logits[:, 0] if single else select(logits, y)
            if self.mode != "presence" and not single:
                other, nontargets = self._other(logits, y)
        if not self._is_checked:
            check_explained(target.detach(), lambda sample: "the logit of the label")
            if self.mode != "presence" and not single:
                check_explained(other.detach(), lambda sample: "the non-target")
        if self.mode != "absence" or single:
            presence = masked_attribution(target, x, mask, square=square, normalize=self.normalize)
        if self.mode != "presence":
            # one logit: |d(-z)| = |dz|
            absence = (
                presence if single else masked_attribution(other, x, mask, square=square, normalize=self.normalize)
            )
        if self.mode == "absence":
            presence = None
        parts = [part for part in (presence, absence) if part is not None]
        value = parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2
        kept = [None if part is None else part.detach() for part in (presence, absence)]
        self.last = Parts(kept[0], kept[1], value.detach(), nontargets)
        return value.mean()

    def _other(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """The non-target's output [N], and its class [N] where it is one."""
        if isinstance(self.nontarget, str) and self.nontarget == "others":
            return select(combine(logits, others_weights(logits.shape[1])), y), None
        if isinstance(self.nontarget, str) and self.nontarget == "mixture":
            return (logits * self._signs(logits, y)).sum(1), None
        nontargets = choose_nontarget(logits.detach(), y, self.nontarget)
        return select(logits, nontargets), nontargets

    def _signs(self, logits: Tensor, y: Tensor) -> Tensor:
        """Random +-1 [N, K], 0 at the target: drawn on the CPU, so that every device gets the same."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.draws) % 2**32)
        self.draws += 1
        signs = torch.randint(0, 2, tuple(logits.shape), generator=generator) * 2.0 - 1
        return signs.to(logits).scatter(1, y[:, None], 0.0)

    def _own_logits(self, x: Tensor) -> Tensor:
        """One more forward on copies of the buffers, and with the random state put back."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        devices = [x.device.index or 0] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), twice_differentiable():
            # a copy: the first layer may work in place
            return self._read(lambda: functional_call(self.model, buffers, (x.clone(),)), x)[1]

    def _read(self, forward: Callable[[], Any], x: Tensor) -> tuple[Tensor, Tensor]:
        """What the model returns, and the logits in it: in front of a softmax or sigmoid, if it ends in one."""
        with LastOperation() as last:
            returned = find_logits(forward(), x)
        logits: Tensor
        logits, self._ending = last.in_front_of(returned)
        return returned, logits

    def _announce(self, stacklevel: int) -> None:
        """Say once in what the model ends."""
        if not self._is_checked:
            announce(self._ending, stacklevel=stacklevel + 1)

    def get_extra_state(self) -> dict[str, Any]:
        """How many mixtures were drawn: a resumed training draws the next one."""
        return {"draws": self.draws}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """As saved by :meth:`get_extra_state`."""
        self.draws = int(state["draws"])
