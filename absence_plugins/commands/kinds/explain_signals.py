"""``absence-plugins explain FILE --signal`` and ``--volume``: against the nearest references of another class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from absence_plugins import SignalKind, VolumeKind
from absence_plugins.commands.kinds.asked import Asked
from absence_plugins.commands.kinds.finding import Finding
from absence_plugins.commands.kinds.models import KindModel, load_kind_model
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.pool import make_pool
from absence_plugins.commands.kinds.read_signals import Arrays, read_array_labels, read_arrays
from absence_plugins.commands.kinds.tensor_samples import TensorSamples
from absence_plugins.commands.kinds.walk import ExplainedSamples, explain_samples
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.kinds import Kind
from absence_plugins.core.places import describe_place

K = 8  # references per sample
TITLES = {
    "signal": "What a signal has, and what it lacks",
    "volume": "What a volume has, and what it lacks",
}


def explain_signals(options: KindOptions) -> ExplainedSamples:
    """Explain signals or volumes.

    Raises:
        ValueError: a file that is not read, another shape than the model or the references have, different rates,
            classes that do not exist.
    """
    noun = options.kind
    loaded = load_kind_model(options.model, options.weights, noun, options.classes)
    arrays = read_arrays(options.files, noun, options.channels, loaded.model)
    compared = arrays
    if options.references is not None:
        compared = read_arrays([options.references], noun, options.channels, loaded.model)
    if options.label is not None:
        compared = read_array_labels(Path(options.label), compared)
    _check_alike(arrays, compared, options)
    kind = _make_kind(noun, arrays.rate or options.rate)
    kind.check(arrays.values)
    chosen, said = options.choose(range(len(arrays)), noun)
    inputs, others = (loaded.fit(values).cpu() for values in (arrays.values[chosen], compared.values))
    check_shape(loaded, inputs[:1], noun)
    outputs = loaded.read(others)
    names = [f"{noun} {name} of {compared.source}" if name.isdigit() else name for name in compared.names]
    is_own = options.references is None
    pool = make_pool(
        loaded, outputs, names, compared.labels, f"{len(compared)} {noun}s of {compared.source}", is_own=is_own
    )
    asked = Asked.read(loaded, outputs.shape[1], options, K)
    shown = tuple(
        f"{noun.capitalize()} {name}" if name.isdigit() else name for name in (arrays.names[i] for i in chosen)
    )
    samples = TensorSamples(
        loaded,
        kind,
        noun,
        inputs,
        shown,
        pool,
        others,
        asked,
        own=tuple(chosen) if is_own else (),
        describe=_say_nothing,
    )
    notes = list(dict.fromkeys([*arrays.notes, *compared.notes]))
    for note in notes:
        warnings.warn(note, AbsenceWarning, stacklevel=2)
    sounds = ["Sounds of whole numbers were read as values from -1 to 1."] * (arrays.rate is not None)
    own = [f"No --references: each {noun} is compared with the others of {compared.source}."] * is_own
    return explain_samples(
        samples,
        options,
        title=TITLES[noun],
        notes=[*loaded.notes, *(f"{note}." for note in notes), *sounds, *own, *pool.notes, *said],
    )


def _make_kind(noun: str, rate: float | None) -> Kind:
    return SignalKind(rate=rate) if noun == "signal" else VolumeKind()


def _say_nothing(found: Finding) -> Sequence[str]:
    return ()


def _check_alike(arrays: Arrays, compared: Arrays, options: KindOptions) -> None:
    """Raise ValueError where references have another shape or rate, or a rate is given that the files do not have."""
    own, other = list(arrays.values.shape[1:]), list(compared.values.shape[1:])
    if own != other:
        raise ValueError(f"the {options.kind}s have the shape {own} and the references {other}; cut or pad them alike")
    if arrays.rate is not None and compared.rate is not None and arrays.rate != compared.rate:
        raise ValueError(
            f"the sounds have {arrays.rate:g} samples per second and the references {compared.rate:g}; resample them "
            "alike"
        )
    if options.rate is not None and arrays.rate not in (None, options.rate):
        raise ValueError(f"--rate {options.rate:g}: the files say {arrays.rate:g} samples per second; leave --rate out")


def check_shape(loaded: KindModel, x: Tensor, noun: str) -> None:
    """Raise ValueError where the model does not take samples of this shape [1, ...]."""
    try:
        found = loaded.read(x.repeat(2, *[1] * (x.dim() - 1)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if describe_place(error) and not isinstance(error, RuntimeError):
            raise
        why = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the model cannot take {noun}s of shape {list(x.shape[1:])}: {why}. --channels says how many channels "
            "one has"
        ) from None
    if len(found) != 2:
        raise ValueError(
            f"the model returned {len(found)} rows of outputs for 2 {noun}s of shape {list(x.shape[1:])}; it takes "
            "another "
            "shape: --channels says how many channels one has"
        )
