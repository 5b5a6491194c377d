"""LSTM, GRU and RNN, unrolled: linear maps, sigmoid, tanh, products. States come from torch's kernel, slopes for all
steps at once.

LSTM   c_t = f c + i g, h_t = o tanh(c_t);  GRU   h_t = n + z (h - n), n = tanh(a + r q);  RNN   h_t = act(a + q)
with a = W_ih x_t + b and q = W_hh h + b. Every product takes the other factor's mean over the two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.training import DRAWS, REMEDY
from absence_plugins.relevance.operation import Multiplier, Operation, Pull, RelevanceError, secant
from absence_plugins.relevance.secants.arithmetic import midpoint, slope
from absence_plugins.relevance.secants.tape import Pair

State = tuple[Tensor, ...]  # multipliers of h, and of c for an LSTM
Pulled = tuple[Tensor, State]  # multipliers of the sequence and of the first state
Run = tuple[list[Pair], Callable[[Tensor, State], Pulled]]  # outputs and last states; the pull of their multipliers


@dataclass(frozen=True)
class Weights:
    """Of one layer in one direction."""

    of_input: Tensor
    of_state: Tensor
    input_bias: Tensor | None = None
    state_bias: Tensor | None = None
    projection: Tensor | None = None


def _activation_slope(name: str, before: Pair) -> tuple[Pair, Tensor]:
    function = getattr(torch, name)
    y = Pair(function(before.value), function(before.other))
    return y, slope(function, before.value, before.other, y.value, y.other, smooth=name != "relu")


def _stacked(steps: Sequence[Tensor], others: Sequence[Tensor]) -> Pair:
    return Pair(torch.stack(list(steps)), torch.stack(list(others)))


def _middle(pair: Pair) -> Tensor:
    return midpoint(pair.value, pair.other)


def _both(one: Callable[..., tuple[Tensor, ...]], xs: Pair, state: Sequence[Pair]) -> list[Pair]:
    here = one(xs.value, *(s.value for s in state))
    there = one(xs.other, *(s.other for s in state))
    return [Pair(a, b) for a, b in zip(here, there, strict=True)]


def _hidden(name: str, x: Tensor, state: Sequence[Tensor], w: Weights) -> tuple[Tensor, Tensor]:
    """Outputs [T, B, H] by torch's own kernel, and what the recurrent weights see: the state before each step."""
    flat = [t for t in (w.of_input, w.of_state, w.input_bias, w.state_bias, w.projection) if t is not None]
    first: Any = [s[None] for s in state]
    first = tuple(first) if len(first) > 1 else first[0]
    kernel: Any = getattr(torch, name)
    hidden = kernel(x, first, flat, w.input_bias is not None, 1, 0.0, False, False, False)[0]
    return hidden, torch.cat([state[0][None], hidden[:-1]])


def lstm_layer(xs: Pair, state: Sequence[Pair], w: Weights) -> Run:
    """Outputs [T, B, H], last h and c; and the pull of their multipliers."""

    def run(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        hidden, previous = _hidden("lstm", x, (h, c), w)
        before = F.linear(x, w.of_input, w.input_bias) + F.linear(previous, w.of_state, w.state_bias)
        i, f, g, _ = before.chunk(4, -1)
        forget, new, cells = f.sigmoid(), i.sigmoid() * g.tanh(), [c]
        for t in range(len(x)):
            cells.append(torch.addcmul(new[t], forget[t], cells[-1]))
        return before, torch.stack(cells), hidden

    before, cells, hidden = _both(run, xs, state)
    size = before.value.shape[-1] // 4
    gates, of_gates = _activation_slope("sigmoid", before)
    g, of_g = _activation_slope("tanh", Pair(*(t[..., 2 * size : 3 * size] for t in (before.value, before.other))))
    squashed, of_cell = _activation_slope("tanh", Pair(cells.value[1:], cells.other[1:]))
    i_bar, f_bar, _, o_bar = _middle(gates).chunk(4, -1)
    of_i, of_f, _, of_o = of_gates.chunk(4, -1)
    # Multipliers of the pre-activations i, f, g per multiplier of c, and of o per multiplier of h.
    by_cell = torch.cat([_middle(g) * of_i, _middle(cells)[:-1] * of_f, i_bar * of_g], -1)
    by_hidden, to_cell = _middle(squashed) * of_o, o_bar * of_cell

    def pull(m_out: Tensor, m_state: State) -> Pulled:
        m_h, m_c = m_state
        m_before = torch.empty_like(before.value)
        for t in reversed(range(len(m_out))):
            m_h = m_h + m_out[t]
            m_h = m_h if w.projection is None else m_h @ w.projection
            m_c = torch.addcmul(m_c, m_h, to_cell[t])
            m_before[t, ..., : 3 * size] = torch.cat([m_c, m_c, m_c], -1) * by_cell[t]
            m_before[t, ..., 3 * size :] = m_h * by_hidden[t]
            m_c = m_c * f_bar[t]
            m_h = m_before[t] @ w.of_state
        return m_before @ w.of_input, (m_h, m_c)

    last = [Pair(hidden.value[-1], hidden.other[-1]), Pair(cells.value[-1], cells.other[-1])]
    return [hidden, *last], pull


def gru_layer(xs: Pair, state: Sequence[Pair], w: Weights) -> Run:
    """Outputs [T, B, H] and last h; and the pull of their multipliers."""

    def run(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        hidden, previous = _hidden("gru", x, (h,), w)
        r, z, n = F.linear(x, w.of_input, w.input_bias).chunk(3, -1)
        r_h, z_h, q = F.linear(previous, w.of_state, w.state_bias).chunk(3, -1)
        gates = torch.cat([r + r_h, z + z_h], -1)
        return gates, n + gates.chunk(2, -1)[0].sigmoid() * q, q, previous, hidden

    gates, news, recurrent, previous, hidden = _both(run, xs, state)
    opened, of_gates = _activation_slope("sigmoid", gates)
    new, of_new = _activation_slope("tanh", news)
    r_bar, z_bar = _middle(opened).chunk(2, -1)
    of_r, of_z = of_gates.chunk(2, -1)
    # Multipliers of the pre-activations z and n per multiplier of h, of r per that of n.
    by_z, by_new, by_r = (_middle(previous) - _middle(new)) * of_z, (1 - z_bar) * of_new, _middle(recurrent) * of_r

    def pull(m_out: Tensor, m_state: State) -> Pulled:
        (m_h,) = m_state
        m_before: list[Tensor] = []
        for t in reversed(range(len(m_out))):
            m_h = m_h + m_out[t]
            m_new, m_z = m_h * by_new[t], m_h * by_z[t]
            m_r = m_new * by_r[t]
            m_before.append(torch.cat([m_r, m_z, m_new], -1))
            m_h = m_h * z_bar[t] + torch.cat([m_r, m_z, m_new * r_bar[t]], -1) @ w.of_state
        return torch.stack(m_before[::-1]) @ w.of_input, (m_h,)

    return [hidden, Pair(hidden.value[-1], hidden.other[-1])], pull


def rnn_layer(name: str) -> Callable[..., Run]:
    """The layer with tanh or relu."""

    def layer(xs: Pair, state: Sequence[Pair], w: Weights) -> Run:
        def run(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
            hidden, previous = _hidden(f"rnn_{name}", x, (h,), w)
            return F.linear(x, w.of_input, w.input_bias) + F.linear(previous, w.of_state, w.state_bias), hidden

        before, hidden = _both(run, xs, state)
        _, of_hidden = _activation_slope(name, before)

        def pull(m_out: Tensor, m_state: State) -> Pulled:
            (m_h,) = m_state
            m_before: list[Tensor] = []
            for t in reversed(range(len(m_out))):
                m_before.append((m_h + m_out[t]) * of_hidden[t])
                m_h = m_before[-1] @ w.of_state
            return torch.stack(m_before[::-1]) @ w.of_input, (m_h,)

        return [hidden, Pair(hidden.value[-1], hidden.other[-1])], pull

    return layer


LAYERS: dict[str, Callable[..., Run]] = {
    "lstm": lstm_layer,
    "gru": gru_layer,
    "rnn_tanh": rnn_layer("tanh"),
    "rnn_relu": rnn_layer("relu"),
}


@secant("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(op: Operation) -> Pull:
    """One step of the layer."""
    layer = LAYERS[op.name.removesuffix("_cell")]
    is_lstm = op.name == "lstm_cell"
    places: list[Any] = [(0,), (1, 0), (1, 1)] if is_lstm else [(0,), (1,)]
    _refuse_weights(op, places)
    x, *state = (Pair(op.operand(place), op.other_operand(place)) for place in places)
    arguments = (*op.args[2:], *(op.kwargs.get(n) for n in ("w_ih", "w_hh", "b_ih", "b_hh")[len(op.args) - 2 :]))
    _, back = layer(Pair(x.value[None], x.other[None]), state, Weights(*arguments))

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        given = multiplier if isinstance(multiplier, tuple) else (multiplier,)
        m_state = tuple(torch.zeros_like(s.value) if m is None else m for m, s in zip(given, state, strict=True))
        m_x, m_first = back(torch.zeros_like(m_state[0])[None], m_state)
        found = dict(zip(places, (m_x[0], *m_first), strict=True))
        return tuple(found[place] for place in op.varying)

    return pull


def _refuse_weights(op: Operation, places: list[Any]) -> None:
    if set(op.varying) - set(places):
        raise RelevanceError(f"{op.name} with weights that depend on the input has no rule; write the steps out")


@secant("lstm", "gru", "rnn_tanh", "rnn_relu")
def sequence(op: Operation) -> Pull:
    """All layers and directions; the output may be batch first."""
    if isinstance(op.args[1], Tensor) and not op.args[1].is_floating_point():  # the sizes of a packed batch
        raise RelevanceError(f"{op.name} on a packed sequence has no rule; give it the padded sequence instead")
    _, _, flat, has_biases, layers, dropout, train, bidirectional, batch_first = op.args[:9]
    if dropout and train:
        raise RelevanceError(f"{op.name} with dropout {DRAWS}; {REMEDY}")
    is_lstm, directions = op.name == "lstm", 2 if bidirectional else 1
    places: list[Any] = [(0,), (1, 0), (1, 1)] if is_lstm else [(0,), (1,)]
    _refuse_weights(op, places)
    x, *first = (Pair(op.operand(place), op.other_operand(place)) for place in places)
    if batch_first:
        x = Pair(x.value.transpose(0, 1), x.other.transpose(0, 1))
    count = (4 if has_biases else 2) + (is_lstm and first[0].value.shape[-1] != first[1].value.shape[-1])
    pulls: list[Callable[[Tensor, State], Pulled]] = []
    for layer in range(layers):
        leaving: list[Pair] = []
        for direction in range(directions):
            index = layer * directions + direction
            own = flat[index * count : (index + 1) * count]
            weights = _weights(own, has_biases)
            state = [Pair(s.value[index], s.other[index]) for s in first]
            (y, *_), back = LAYERS[op.name](_flipped(x, direction), state, weights)
            pulls.append(back)
            leaving.append(_flipped(y, direction))
        x = Pair(torch.cat([p.value for p in leaving], -1), torch.cat([p.other for p in leaving], -1))

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        given = multiplier if isinstance(multiplier, tuple) else (multiplier, *(None for _ in first))
        m = torch.zeros_like(x.value) if given[0] is None else given[0].transpose(0, 1) if batch_first else given[0]
        m_state = [torch.zeros_like(s.value) if g is None else g for g, s in zip(given[1:], first, strict=True)]
        m_first = [torch.zeros_like(s) for s in m_state]
        for layer in reversed(range(layers)):
            entered: list[Tensor] = []
            for direction, part in enumerate(m.chunk(directions, -1)):
                index = layer * directions + direction
                part = part.flip(0) if direction else part
                m_x, m_begin = pulls[index](part, tuple(s[index] for s in m_state))
                entered.append(m_x.flip(0) if direction else m_x)
                for store, value in zip(m_first, m_begin, strict=True):
                    store[index] = value
            m = entered[0] if directions == 1 else entered[0] + entered[1]
        found = dict(zip(places, (m.transpose(0, 1) if batch_first else m, *m_first), strict=True))
        return tuple(found[place] for place in op.varying)

    return pull


def _weights(flat: Sequence[Tensor], has_biases: bool) -> Weights:
    named = ("of_input", "of_state", "input_bias", "state_bias", "projection")
    return Weights(**dict(zip(named if has_biases else (*named[:2], named[4]), flat, strict=False)))


def _flipped(pair: Pair, backward: int) -> Pair:
    return Pair(pair.value.flip(0), pair.other.flip(0)) if backward else pair
