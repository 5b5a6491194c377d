"""What directions are to influence: classes, outputs, units, layers and other directions, read from a layer's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.direction import Direction
from absence_plugins.core.outputs import Logit, Output, as_columns
from absence_plugins.core.units import Layer, Unit
from absence_plugins.methods.directions.heads import Explained, Head, as_explained
from absence_plugins.methods.directions.inputs import Inputs
from absence_plugins.methods.identity import digest_of

Wanted = Explained | Layer  # a Layer stands for all of its units


def as_list(outputs: Sequence[Wanted] | Wanted | None) -> Any:
    """One output as a list of it; anything else itself."""
    return [outputs] if isinstance(outputs, (Unit, Direction, Output, Layer, int)) else outputs


def is_per_sample(output: Wanted) -> bool:
    """Whether an output is chosen for each sample of the data.

    >>> is_per_sample(Logit([2, 0])), is_per_sample(Logit(2))
    (True, False)
    """
    return isinstance(output, Output) and output.of_samples(torch.zeros(0, dtype=torch.long)) is not output


class ExplainedOutputs:
    """Features of a layer -> the outputs asked for, [n, K].

    Args:
        head: of the layer.
        outputs: see :func:`~absence_plugins.methods.directions.influence`; None: all classes.

    Raises:
        ValueError: no outputs, units in front of the layer.
        TypeError: something else.
    """

    def __init__(self, head: Head, outputs: Sequence[Wanted] | Wanted | None) -> None:
        given = as_list(outputs)
        if given is not None and not len(given):
            raise ValueError("outputs is empty; name classes or units, or pass None for all classes")
        self.head = head
        self.outputs: list[Output | Unit | Direction | Layer] | None = None
        if given is not None:
            self.outputs = [one if isinstance(one, Layer) else as_explained(one) for one in given]
        self.units = [one for one in self.outputs or () if not isinstance(one, Output)]

    def read(
        self, features: Tensor, samples: Tensor, inputs: Inputs | None = None, *, probabilities: bool = False
    ) -> Tensor:
        """Values [n, K] with these features in place of the layer's.

        Args:
            features: [n, H, W, D].
            samples: their numbers in the data, [n]: of outputs that were chosen per sample.
            inputs: of these samples, where :class:`Head` needs them.
            probabilities: of a class its log-probability instead of its logit.

        Raises:
            ValueError: outputs with more axes than classes that are not named, no such output.
        """
        values: list[Tensor] = []
        if self.units or inputs is not None:
            logits, values = self.head.read(features, self.units, inputs)
        else:
            logits = self.head(features)
        logits = as_columns(logits)
        if self.outputs is None:
            if logits.dim() > 2:
                raise ValueError(
                    f"the model's outputs have the shape {tuple(logits.shape[1:])} behind the batch; name those to "
                    f"test, for example outputs=[Logit({(0,) * (logits.dim() - 1)})] with Logit of "
                    "absence_plugins.core.outputs"
                )
            return _log_probabilities(logits) if probabilities else logits
        of_units = iter(values)
        columns = []
        for one in self.outputs:
            if isinstance(one, Output):
                scores = _log_probabilities(logits) if probabilities and _is_class(one) else logits
                columns.append(one.of_samples(samples).values(scores)[:, None])
            else:
                value = next(of_units)
                columns.append(value if isinstance(one, Layer) else value[:, None])
        return torch.cat(columns, 1)

    def check(self, values: Tensor, first: int, when: str = "") -> None:
        """Reject values [n, K] of images ``first`` to ``first + n - 1`` that are no numbers.

        Raises:
            ValueError: which output of which image, and its value.
        """
        bad = torch.nonzero(~torch.isfinite(values))
        if len(bad):
            row, column = bad[0].tolist()
            name = self.names(values.shape[1])[column]
            raise ValueError(
                f"{name} of image {first + row} is NaN or infinite ({float(values[row, column])}){when}; check the "
                "image and the weights, or leave this output out"
            )

    def names(self, count: int) -> tuple[str, ...]:
        """Of the K outputs."""
        if self.outputs is None:
            return tuple(f"class {k}" for k in range(count))
        names: list[str] = []
        for one in self.outputs:
            units = [one[k] for k in range(self.head.count_units(one))] if isinstance(one, Layer) else [one]
            names += map(_name, units)
        return tuple(names)

    @property
    def identity(self) -> list[str]:
        """What is asked for, for a checkpoint: in words, with a hash of what the words leave out."""
        return ["all classes"] if self.outputs is None else [_identify(one) for one in self.outputs]


def _identify(output: Output | Unit | Direction | Layer) -> str:
    if isinstance(output, (Unit, Layer)):
        return repr(output)
    held = vars(output).values()
    tensors = [torch.as_tensor(one) for one in held if isinstance(one, (Tensor, list)) and len(one)]
    plain = {name: str(one) for name, one in vars(output).items() if not isinstance(one, (Tensor, list))}
    return f"{type(output).__name__} {plain} {digest_of(*tensors) if tensors else ''}".rstrip()


def _is_class(output: Output) -> bool:
    return isinstance(output, Logit) and not isinstance(output.index, tuple) and output.sign == 1


def _log_probabilities(logits: Tensor) -> Tensor:
    """Of classes [n, K] with K > 1; anything else rises and falls with its own probability, and stays."""
    return logits.log_softmax(1) if logits.dim() == 2 and logits.shape[1] > 1 else logits


def _name(output: Output | Unit | Direction) -> str:
    if isinstance(output, Logit) and isinstance(output.index, int) and output.sign == 1:
        return f"class {output.index}"
    if isinstance(output, Unit) and output.layer:
        at = output.at
        name = f"{output.layer}:{output.index}" if output.position is None else output.describe()
        said = [word for word in (at.reduce, at.side) if word not in ("mean", "auto")]
        return f"{name} ({', '.join(said)})" if said else name
    return output.describe()
