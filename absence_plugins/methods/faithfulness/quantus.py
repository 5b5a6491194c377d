"""Faithfulness of absence evidence as a metric of Quantus: ``pip install "absence-plugins[quantus]"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from absence_plugins.core.labels import check_labels
from absence_plugins.core.references import ReferenceSet
from absence_plugins.methods.faithfulness.result import View
from absence_plugins.methods.faithfulness.scores import absence_scores

try:
    from quantus.helpers.enums import DataType, EvaluationCategory, ModelType, ScoreDirection
    from quantus.metrics.base import Metric
except ImportError as error:
    raise ImportError(
        f'this metric needs Quantus ({error}): pip install "absence-plugins[quantus]"; `absence_scores` needs nothing '
        "more"
    ) from error


class AbsenceFaithfulness(Metric):
    """:func:`~absence_plugins.methods.faithfulness.absence_scores` behind the interface of ``quantus.Metric``.

    ``y_batch`` is the *explained* unit of every sample (in the non-target view the non-target's logit), ``a_batch`` its
    signed map [N, C, H, W], [N, 1, H, W] or [N, H, W]. The sign: R > 0 raises the unit, R < 0 holds it down; so ``abs``
    and ``normalise`` of other metrics do not exist here.

    A call returns one score per sample: 1 as good as the best order found, 0 as a random order, below 0 wrong; NaN
    where no order gains anything. With ``return_aggregate=True`` the list holds one number, ``aggregate_func`` of them
    (by default the mean of those that exist).

    Source: this package (docs/faithfulness); Hedstroem et al., JMLR 2023 (Quantus).

    Args:
        view: "nontarget" (deletion of suppressors) or "reference" (insertion of the missing).
        reference: a ReferenceSet, for the reference view.
        empty: value of a blank pixel.
        steps: points of a curve.
        cell: side in pixels of what is changed at once.
        seed: of the random orders.
        return_aggregate: one number instead of a list.
        aggregate_func: how it is made.
        display_progressbar: Quantus' progress bar.

    Raises:
        TypeError: a model of TensorFlow.
        ValueError: as ``absence_scores``.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, -2.0, 3.0, -4.0], [0.0, 0.0, 0.0, 0.0]])
        >>> x = np.ones((2, 1, 2, 2), dtype=np.float32)
        >>> maps = np.tile(np.array([1.0, -2.0, 3.0, -4.0], dtype=np.float32).reshape(1, 1, 2, 2), (2, 1, 1, 1))
        >>> metric = AbsenceFaithfulness()
        >>> [float(score) for score in metric(net, x, np.array([0, 0]), maps)]
        [1.0, 1.0]
    """

    name: ClassVar[str] = "Absence-Faithfulness"
    data_applicability: ClassVar[set[Any]] = {DataType.IMAGE}
    model_applicability: ClassVar[set[Any]] = {ModelType.TORCH}
    score_direction: ClassVar[Any] = ScoreDirection.HIGHER
    evaluation_category: ClassVar[Any] = EvaluationCategory.FAITHFULNESS

    def __init__(
        self,
        view: View = "nontarget",
        reference: ReferenceSet | None = None,
        empty: Any = None,
        steps: int = 32,
        cell: int | None = None,
        seed: int = 0,
        *,
        return_aggregate: bool = False,
        aggregate_func: Callable[[Any], Any] | None = None,
        display_progressbar: bool = False,
    ) -> None:
        super().__init__(
            abs=False,
            normalise=False,
            normalise_func=None,
            normalise_func_kwargs=None,
            return_aggregate=return_aggregate,
            aggregate_func=np.nanmean if aggregate_func is None else aggregate_func,
            default_plot_func=None,
            disable_warnings=True,
            display_progressbar=display_progressbar,
        )
        self.options: dict[str, Any] = {
            "view": view,
            "reference": reference,
            "empty": empty,
            "steps": steps,
            "cell": cell,
            "seed": seed,
        }

    def __call__(
        self,
        model: Any,
        x_batch: Any,
        y_batch: Any,
        a_batch: Any = None,
        s_batch: Any = None,
        channel_first: bool | None = None,
        explain_func: Callable[..., Any] | None = None,
        explain_func_kwargs: dict[str, Any] | None = None,
        model_predict_kwargs: dict[str, Any] | None = None,
        softmax: bool | None = False,
        device: str | None = None,
        batch_size: int = 64,
        custom_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Arguments as in every metric of Quantus; the outputs must be logits (``softmax=False``)."""
        if softmax:
            raise ValueError("softmax=True: after a softmax every output answers for all others; explain the logits")
        return super().__call__(
            model=model,
            x_batch=x_batch,
            y_batch=y_batch,
            a_batch=a_batch,
            s_batch=s_batch,
            channel_first=channel_first,
            explain_func=explain_func,
            explain_func_kwargs=explain_func_kwargs,
            model_predict_kwargs=model_predict_kwargs,
            softmax=False,
            device=device,
            batch_size=batch_size,
            custom_batch=custom_batch,
            **kwargs,
        )

    def evaluate_batch(
        self, model: Any, x_batch: Any, y_batch: Any, a_batch: Any, s_batch: Any = None, **kwargs: Any
    ) -> list[float]:
        """Scores of one batch."""
        network = model.get_model()
        if not isinstance(network, torch.nn.Module):
            raise TypeError(f"the model must be an nn.Module, got {type(network).__name__}")
        parameter = next(network.parameters(), torch.zeros(0))

        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values)).to(parameter.device)

        x = tensor(x_batch).to(parameter.dtype)
        units = check_labels(np.asarray(y_batch), len(x), "image").to(x.device)
        scores = absence_scores(network, x, units, tensor(a_batch).to(x), **self.options)
        return list(scores.per_sample.tolist())
