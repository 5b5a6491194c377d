"""What is asked about every sample: the explained output, the class to compare with, how many references."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.commands.class_names import find_class
from absence_plugins.commands.kinds.models import KindModel
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.pool import ANY
from absence_plugins.core.choices import Choice, choose
from absence_plugins.core.outputs import class_scores

WORDS = ("runner_up", "margin")  # for --nontarget, beside a class


@dataclass(frozen=True)
class Asked:
    """The options that say what is asked.

    Attributes:
        target: a class, or None: the predicted one.
        nontarget: another class to explain, "runner_up", "margin" (target minus runner-up), or None: the target.
        contrast: the class of the references, "any", or None: the runner-up.
        k: references per sample.
        rule: of the relevance.
        seed: of the controls.
    """

    target: int | None = None
    nontarget: int | str | None = None
    contrast: int | str | None = None
    k: int = 8
    rule: str = "epsilon"
    seed: int = 0

    @classmethod
    def read(cls, loaded: KindModel, count: int, options: KindOptions, k: int) -> Asked:
        """From what was typed; classes by number or name, of a model with ``count`` outputs.

        k: references where the options name no number of them.

        Raises:
            ValueError: a class that does not exist, or that is asked for twice.
        """
        nontarget = options.nontarget
        classes = max(2, count)  # of one output z class 1 is that of +z

        def find(option: str, text: str | None, words: tuple[str, ...] = ()) -> int | str | None:
            if text is None or text in words:
                return text
            return find_class(option, text, loaded.categories, classes)

        own, other = find("--target", options.target), find("--nontarget", nontarget, WORDS)
        against = find("--contrast", options.contrast, (ANY,))
        if count == 1 and nontarget is not None:
            raise ValueError(
                f"--nontarget {nontarget}: the model has one output, and --target 0 or 1 says which side of it"
            )
        for option, value in (("--nontarget", other), ("--contrast", against)):
            if own is not None and value == own:
                raise ValueError(f"{option} {value} is the target itself; choose another class")
        return cls(own, other, against, options.k or k, options.rule, options.seed)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about one sample.

    Attributes:
        outputs: of the sample [1, K].
        predicted: its class.
        choice: the explained output.
        own: the class whose references would say nothing: that of the explained output.
        runner_up: the class to compare with, unless another is asked for; None: every other class.
    """

    outputs: Tensor
    predicted: int
    choice: Choice
    own: int
    runner_up: int | None

    @classmethod
    def of(cls, outputs: Tensor, asked: Asked) -> Question:
        """Choose the explained output of a sample with outputs [1, K].

        Of a single output z class 1 is that of +z, class 0 that of -z, and the class that is asked for is explained.

        Raises:
            ValueError: a target that does not exist, outputs that are no logits, or not finite.
        """
        scores = class_scores(outputs)[0]
        if len(scores) == 1:
            predicted = int(scores[0] > 0)
            own = predicted if asked.target is None else asked.target
            choice = choose(outputs, 0, None if own == 1 else "negated")
            return cls(outputs, predicted, choice, own, 1 - own)
        predicted = int(scores.argmax())
        target = predicted if asked.target is None else asked.target
        choice = choose(outputs, target, asked.nontarget)  # type: ignore[arg-type]
        masked = scores.clone()
        masked[target] = -torch.inf
        runner_up = int(masked.argmax())
        if choice.kind == "nontarget" and choice.nontargets is not None:
            # its own samples are high on it, so what they have and the sample lacks holds it down
            return cls(outputs, predicted, choice, target, int(choice.nontargets[0]))
        if choice.kind == "margin" and choice.nontargets is not None:
            runner_up = int(choice.nontargets[0])
        return cls(outputs, predicted, choice, target, runner_up)

    @property
    def is_held_down(self) -> bool:
        """Whether what holds the explained output down is what is asked for, not what raises it."""
        return self.choice.kind == "nontarget"

    @property
    def value(self) -> float:
        """The explained output."""
        return float(self.choice.values(self.outputs)[0])

    def read(self, outputs: Tensor) -> Tensor:
        """The explained output of other samples, from their outputs [N, K]: [N]."""
        every = torch.zeros(len(outputs), dtype=torch.long)
        return self.choice.of_samples(every).values(outputs)
