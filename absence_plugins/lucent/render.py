"""``render_vis``: Lucent's, on pre-activations, on the model's device, without a trace, with the values reached."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from lucent.optvis import param
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_integer
from absence_plugins.core.devices import device_of
from absence_plugins.core.outputs import check_logits, shrunk
from absence_plugins.core.randomness import RandomStates, seeded
from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Layer
from absence_plugins.lucent.layers import Activations, LayerNotComputed
from absence_plugins.lucent.objectives import Term, as_objective, note_rectified
from absence_plugins.lucent.parameters import belong_to_images, make_images
from absence_plugins.lucent.rendering import Reached, Rendering
from absence_plugins.lucent.surroundings import HOST, frozen, load_rendering, on_device
from absence_plugins.lucent.unstick import dead_images, redirected

render, transform = load_rendering()
SMALLEST = 224  # Lucent enlarges smaller images to this
DEFAULT_SIZE = 128


def render_vis(
    model: nn.Module,
    objective_f: Any,
    param_f: Callable[[], Any] | None = None,
    optimizer: Callable[[Any], Any] | None = None,
    transforms: list[Any] | None = None,
    thresholds: Sequence[int] = (512,),
    verbose: bool = False,
    preprocess: bool | Callable[[Tensor], Tensor] = True,
    progress: bool = True,
    show_image: bool = False,
    save_image: bool = False,
    image_name: str | None = None,
    show_inline: bool = False,
    fixed_image_size: int | tuple[int, int] | None = None,
    *,
    seed: int | None = None,
    data_range: Tensor | Sequence[float] | None = None,
) -> Rendering:
    """Optimize images for an objective, as Lucent does; returns its list of arrays, with the values reached.

    The model may be in any mode and on any device; it runs in evaluation mode, and it, its hooks, gradients and all
    random states are as before afterwards, also after an error or Ctrl-C (KeyboardInterrupt, which Lucent swallows).
    For ``absence_contrast`` two images are made that begin alike. An image from which the unit cannot be reached (the
    path is dead) gets a redirected gradient until it can.

    Source: Olah et al., Distill 2017; what differs from Lucent: docs/from-lucent.md.

    Arguments are Lucent's, with these differences and additions:

    - ``param_f``: any of ``lucent.optvis.param``, or a function of yours that returns parameters (tensors in a list,
      ``module.parameters()``, an optimizer's groups) and a function that makes images [B, C, H, W] of them;
    - ``objective_f``: an objective of Lucent's or of ours, ``"layer:3"`` (raise channel 3), ``"-layer:3"`` (lower it);
    - ``preprocess``: as in Lucent (True: ImageNet's normalization; False for models that take images in [0, 1]), or a
      function from images [B, C, H, W] in [0, 1] to the model's inputs;
    - ``show_image``: opens a window at the end; False by default;
    - ``seed``: of start images and transforms; None: from the present random states;
    - ``data_range``: the unit's values in real data (:func:`unit_values`, or their lowest and highest); then
      ``reached`` says where the rendered images lie among them.

    Returns:
        A list of arrays [B, H, W, C] in [0, 1], one per threshold; its ``reached`` holds a :class:`Reached` for every
        part of an absence objective.

    Raises:
        ValueError: no such layer, channel or image; thresholds that are no steps; a softmax.
        RuntimeError: the model's own, if a layer that the objective needs was not reached.

    >>> net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([0.0, -1.0, 0.0]).reshape(1, 3, 1, 1)  # fires where green is missing
    >>> options = dict(thresholds=(64,), transforms=[], preprocess=False, fixed_image_size=16, seed=0, progress=False)
    >>> found = render_vis(net, "-1:0", lambda: param.image(16, decorrelate=False, fft=False), **options)
    >>> found[0].shape, bool(found[0][..., 1].mean() > 0.8), found.reached[0].lowered  # the picture turned green
    ((1, 16, 16, 3), True, True)
    """
    steps = _checked_thresholds(thresholds)
    objective = as_objective(objective_f)
    device = device_of(model)
    with working_on(model, HOST), seeded(seed), frozen(model), on_device(device):
        images_wanted = 2 if getattr(objective, "same_start", False) else None
        given, parameters, image_f = make_images(param_f or (lambda: param.image(DEFAULT_SIZE, batch=images_wanted)))
        per_image = belong_to_images(parameters, image_f)
        if getattr(objective, "same_start", False):
            _begin_alike(parameters, per_image, len(image_f()))
        with Activations(model, image_f) as T:
            run = _Run(
                model,
                objective,
                parameters,
                per_image,
                image_f,
                T,
                transforms,
                preprocess,
                fixed_image_size,
            )
            run.prepare()
            run.optimize(
                torch.optim.Adam(given, lr=5e-2) if optimizer is None else optimizer(given),
                steps,
                verbose=verbose,
                progress=progress,
                show_inline=show_inline,
            )
            reached = tuple(_reached(term, values, data_range) for term, values in run.values())
        _show(
            image_f,
            save_image=save_image,
            image_name=image_name,
            show_inline=show_inline,
            show_image=show_image,
        )
    return Rendering(run.images, reached)


class _Run:
    """One optimization."""

    def __init__(
        self,
        model: nn.Module,
        objective: Any,
        parameters: list[Tensor],
        per_image: list[bool],
        image_f: Callable[[], Tensor],
        T: Activations,
        transforms: list[Any] | None,
        preprocess: bool | Callable[[Tensor], Tensor],
        fixed_image_size: int | tuple[int, int] | None,
    ) -> None:
        self.model, self.objective, self.image_f, self.T = model, objective, image_f, T
        self.parameters, self.per_image = parameters, per_image
        self.terms: tuple[Term, ...] = getattr(objective, "terms", ())
        chosen = list(transform.standard_transforms if transforms is None else transforms)
        plain: list[Callable[[Tensor], Tensor]] = []
        if callable(preprocess):
            plain.append(preprocess)
        elif preprocess:
            inception = type(model).__name__ == "InceptionV1"
            plain.append(transform.preprocess_inceptionv1() if inception else transform.normalize())
        height, width = image_f().shape[2:]
        size: Any = SMALLEST if height < SMALLEST or width < SMALLEST else None
        if fixed_image_size is not None:
            for side in fixed_image_size if isinstance(fixed_image_size, (tuple, list)) else (fixed_image_size,):
                check_integer("fixed_image_size", side)
            size = fixed_image_size
        if size is not None:
            plain.append(nn.Upsample(size=size, mode="bilinear", align_corners=True))
        self.transformed, self.plain = (
            transform.compose([*chosen, *plain]),
            transform.compose(plain),
        )
        self.images: list[np.ndarray] = []
        self.reached: list[list[Tensor]] = []
        self._warned = False

    def forward(self, images: Tensor) -> None:
        """Fill T; the model may fail behind the layers that are needed."""
        self._failure: RuntimeError | None = None
        try:
            self.T.run(images)
        except RuntimeError as error:
            self._failure = error

    def loss(self) -> Tensor:
        """The objective of the last forward."""
        value: Tensor = self.objective(self.T)
        if self._failure is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"the model fails behind the layers that the objective needs, which does no harm here: {self._failure}",
                AbsenceWarning,
                stacklevel=6,
            )
        return value

    def prepare(self) -> None:
        """One look at the model, to know which layers are asked for; draws nothing from the random states."""
        before = RandomStates()
        with torch.no_grad():
            images = self.transformed(self.image_f())
            self.forward(images)
            with suppress(LayerNotComputed):
                self.loss()  # names what it needs
            while True:
                known = len(self.T.watches)
                self.forward(images)
                try:
                    loss = self.loss()
                except LayerNotComputed:
                    if len(self.T.watches) > known:
                        continue  # the objective asks for one layer after the other
                    if self._failure is not None:
                        raise self._failure from None
                    raise
                break
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise ValueError(f"the objective must return one number, got {loss!r:.80}")
            note_rectified(self.T, self.terms)
            if any(not term.at.name for term in self.terms):
                check_logits(self.T.maps(Layer("")), lambda: self._outputs_for(*shrunk((images,))))
        before.restore()

    def _outputs_for(self, images: Tensor) -> Tensor:
        self.forward(images)
        return self.T.maps(Layer(""))

    def optimize(
        self,
        descent: Any,
        steps: list[int],
        *,
        verbose: bool,
        progress: bool,
        show_inline: bool,
    ) -> None:
        """The steps; images and values at the thresholds."""
        if verbose:
            before = RandomStates()
            self.forward(self.transformed(self.image_f()))
            print(f"Initial loss: {float(self.loss()):.3f}")
            before.restore()

        def closure() -> Tensor:
            descent.zero_grad()
            images = self.image_f()
            self.forward(self.transformed(images))
            loss = self.loss()
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            dead = dead_images(list(gradients), self.per_image, len(images))
            if bool(dead.any()):
                self._wake(dead)
            return loss

        for step in tqdm(range(1, max(steps) + 1), disable=not progress, desc="rendering"):
            loss = descent.step(closure)
            if step in steps:
                self._keep()
                if verbose:
                    print(f"Loss at step {step}: {float(loss):.3f}")
                    if show_inline:
                        render.show(self.images[-1])

    def _wake(self, dead: Tensor) -> None:
        """Gradients through redirected rectifiers for the images that have none."""
        with redirected(self.model):
            self.forward(self.transformed(self.image_f()))
            gradients = torch.autograd.grad(self.loss(), self.parameters, allow_unused=True, materialize_grads=True)
        for parameter, gradient, is_per_image in zip(self.parameters, gradients, self.per_image, strict=True):
            if is_per_image:
                chosen = dead.reshape(-1, *[1] * (gradient.dim() - 1))
                parameter.grad = torch.where(chosen, gradient, parameter.grad)  # type: ignore[arg-type]
            else:
                parameter.grad = gradient

    def _keep(self) -> None:
        """The images as they are now, and the values on them."""
        with torch.no_grad():
            images = self.image_f()
            self.images.append(render.tensor_to_img_array(images))
            if self.terms:
                before = RandomStates()
                self.forward(self.plain(images))
                self.reached.append([term.values(self.T) for term in self.terms])
                before.restore()

    def values(self) -> list[tuple[Term, list[Tensor]]]:
        """Every term with its values at the thresholds."""
        return [(term, [row[number] for row in self.reached]) for number, term in enumerate(self.terms)]


def _checked_thresholds(thresholds: Sequence[int]) -> list[int]:
    steps = list(thresholds)
    if not steps or any(
        isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 1 for step in steps
    ):
        raise ValueError(f"thresholds={thresholds!r} must be step numbers from 1, such as (256, 512)")
    return [int(step) for step in steps]


def _begin_alike(parameters: list[Tensor], per_image: list[bool], images: int) -> None:
    """All images of the batch from the first one's start. Raises ValueError if there are not two."""
    if images < 2:
        raise ValueError(f"a contrast needs two images, got {images}; pass param_f=lambda: param.image(size, batch=2)")
    if not any(per_image):
        raise ValueError(
            "a contrast needs two images that begin alike, and every parameter of param_f moves both images: hand over "
            "a tensor with one row per image, as param.image(size, batch=2) does"
        )
    with torch.no_grad():
        for parameter, is_per_image in zip(parameters, per_image, strict=True):
            if is_per_image:
                parameter[1:] = parameter[:1]


def _reached(term: Term, values: list[Tensor], data_range: Any) -> Reached:
    shown = tuple(tuple(float(value) for value in row) for row in values)
    if data_range is None:
        return Reached(term.description, term.layer, term.sign > 0, shown, None, None)
    data = torch.as_tensor(data_range, dtype=torch.float64).detach().flatten().cpu()
    if data.numel() == 0 or not bool(torch.isfinite(data).all()):
        raise ValueError("data_range must hold the unit's finite values in real data, at least one")
    below = tuple(tuple(float((data < value).double().mean()) for value in row) for row in shown)
    return Reached(
        term.description,
        term.layer,
        term.sign > 0,
        shown,
        below,
        (float(data.min()), float(data.max())),
    )


def _show(
    image_f: Callable[[], Tensor],
    *,
    save_image: bool,
    image_name: str | None,
    show_inline: bool,
    show_image: bool,
) -> None:
    if save_image:
        render.export(image_f(), image_name)
    if show_inline:
        render.show(render.tensor_to_img_array(image_f()))
    elif show_image:
        render.view(image_f())
