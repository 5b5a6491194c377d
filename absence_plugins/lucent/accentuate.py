"""From one's own photograph: the least change that switches a unit off, or on.

Feature visualization from noise shows what a unit's extreme looks like; this shows what is missing or in the way in a
given picture. It is found in the phase of the picture's Fourier transform (its magnitudes, those of a natural image,
stay) or in its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from tqdm.auto import tqdm

from absence_plugins.core.checks import check_choice, check_integer, check_number, check_seed
from absence_plugins.core.devices import device_of
from absence_plugins.core.direction import Direction
from absence_plugins.core.reading import plain_model, stopped_at
from absence_plugins.core.recorder import make_watch
from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Unit
from absence_plugins.lucent.accentuation import Accentuation
from absence_plugins.lucent.objectives import AbsenceObjective, Term, as_objective
from absence_plugins.lucent.surroundings import frozen, load_rendering

Space = Literal["phase", "pixels"]
SPACES = ("phase", "pixels")
RATE, DECAYS, EPS = 0.05, (0.9, 0.999), 1e-8  # of Adam
BEYOND, TOWARDS = (
    0.05,
    0.3,
)  # of the data's deviation: the default goal beyond all of it; how far steps aim past the goal
GROWTH = 1.05  # of the weight of the goal, in every step that does not reach it
HALVINGS = 10  # with which the least change on the way is found
AWAY = 20.0  # weight of the mean square of the change, in deviations of the unit


def accentuate(
    model: nn.Module,
    objective: Any,
    image: Tensor,
    *,
    data_range: Tensor | Sequence[float] | None = None,
    goal: float | None = None,
    space: Space = "phase",
    steps: int = 64,
    strength: float = 1.0,
    preprocess: bool | Callable[[Tensor], Tensor] = True,
    jitter: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Accentuation:
    r"""Change a photograph as little as was found until a unit lies below (or above) its values on real images.

    minimize  w max(0, +-(u(x) - goal) / s + .3)  +  strength (20 \|x - x0\|^2 / n  +  \|f(x) - f(x0)\|^2 / \|f(x0)\|^2)

    with s the deviation of the unit in the data, f the first layer, and a weight w that grows in every step that does
    not reach the goal; Adam on copies moved by a few pixels. Then the least change on the straight way from the
    photograph to what was found (of phases, or of pixels) that still reaches the goal is taken.

    Source: after MACO (Fel et al., NeurIPS 2023: phases, magnitudes fixed) and feature accentuation (Hamblin et al.,
    2024: from an image, with a penalty on early features); here with a minus, and no further than needed.

    Args:
        model: in any mode, on any device; it is as before afterwards.
        objective: ``"-layer:3"`` drives channel 3 down, ``"layer:3"`` up; an absence objective, or its negative.
        image: [C, H, W] or [1, C, H, W] in [0, 1].
        data_range: the unit's values on real images (:func:`unit_values`); the default goal lies beyond all of them.
        goal: the value to reach; None: beyond the data, or without data as far as the steps lead.
        space: "phase": one angle per frequency, the same for all channels, so that texture moves and colors stay;
            "pixels": an addition with the spectrum of natural images (1 / f).
        steps: of the optimization.
        strength: weight of staying near the photograph.
        preprocess: as in :func:`render_vis`: True, ImageNet's normalization; False; or a function.
        jitter: pixels by which every step's copy is moved at most.
        seed: of these moves; the same seed gives the same bits.
        progress: whether to show a bar.

    Returns:
        Accentuation: photograph and picture, the values on both, the distance, and where the value lies in the data.

    Raises:
        ValueError: an image outside [0, 1], no such layer or channel, data that are not finite, numbers out of range.
        TypeError: an objective that does not say what it drives.

    >>> net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)  # likes red
    >>> options = dict(space="pixels", goal=0.2, preprocess=False, progress=False)
    >>> found = accentuate(net, "-1:0", torch.full((3, 8, 8), 0.5), **options)
    >>> found.is_reached, bool(found.picture[0].mean() < 0.25)
    (True, True)
    """
    check_choice("space", space, SPACES)
    check_integer("steps", steps)
    check_integer("jitter", jitter, least=0)
    check_number("strength", strength, least=0)
    check_seed(seed)
    term, lowered = _driven(objective)
    data = _checked_data(data_range)
    photograph = _checked_image(image).to(device_of(model))
    aim = _Aim.of(goal, data, lowered)
    descent = _Descent(steps, strength, jitter, seed, progress)
    reader = _Reader(model, term, _preparation(model, preprocess), photograph)
    with working_on(model), frozen(model), torch.random.fork_rng(devices=[]), reader:
        before = reader.value(photograph)
        picture = _find(reader, photograph, before, aim, space, descent)
        after, moved = reader.value(picture), reader.moved(picture)
    below = None if data is None else float((data < after).double().mean())
    return Accentuation(
        description=term.description,
        photograph=photograph[0].cpu(),
        picture=picture[0].cpu(),
        before=before,
        after=after,
        goal=aim.goal,
        lowered=lowered,
        distance=float((picture - photograph).square().mean().sqrt()),
        feature_distance=moved,
        data=None if data is None else (float(data.min()), float(data.max())),
        below=below,
    )


@dataclass(frozen=True)
class _Descent:
    steps: int
    strength: float
    jitter: int
    seed: int
    progress: bool


@dataclass(frozen=True)
class _Aim:
    """Which value, which way, and the unit's scale."""

    goal: float | None
    sign: float  # +1 to lower
    scale: float | None

    @classmethod
    def of(cls, goal: float | None, data: Tensor | None, lowered: bool) -> _Aim:
        scale = None if data is None or len(data) < 2 else float(data.std()) or None
        if goal is not None:
            goal = check_number("goal", goal)
        elif data is not None:
            beyond = BEYOND * (scale or 1.0)
            goal = float(data.min()) - beyond if lowered else float(data.max()) + beyond
        return cls(goal, 1.0 if lowered else -1.0, scale)

    def reached(self, value: float) -> bool:
        return self.goal is None or self.sign * (value - self.goal) <= 0

    def loss(self, value: Tensor, before: float) -> Tensor:
        """How far the value is from the goal, in deviations."""
        if self.goal is None:
            return self.sign * value / (self.scale or abs(before) or 1.0)
        scale = self.scale or abs(before - self.goal) or 1.0
        return torch.relu(self.sign * (value - self.goal) / scale + TOWARDS)


class _Reader:
    """The unit's value and the first layer's output of pictures in [0, 1]; runs the model no further than the unit."""

    def __init__(self, model: nn.Module, term: Term, prepare: Callable[[Tensor], Tensor], photograph: Tensor) -> None:
        self.model, self.term, self.prepare, self.photograph = model, term, prepare, photograph
        self.early = make_watch(_first_weighted(model), "output", "the first layer")
        self.watch = term.at.watch(model)

    def __enter__(self) -> _Reader:
        with ExitStack() as opened:  # closed again if one of them fails
            self._run = opened.enter_context(stopped_at(self.model, self.watch, gradients=True))
            self._run_early = opened.enter_context(stopped_at(self.model, self.early, gradients=True))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def read(self, pictures: Tensor) -> Tensor:
        """u [B], with its graph."""
        self.early.forget()
        prepared = self.prepare(pictures)
        maps = self.term.at.arranged(self.model, self.watch, self._run(prepared), (prepared,))
        self._early = self.early.last()
        return self.term.read(maps)

    def value(self, picture: Tensor) -> float:
        with torch.no_grad():
            return float(self.read(picture)[0])

    def both(self, picture: Tensor, moves: Sequence[int] = (0, 0)) -> tuple[Tensor, Tensor]:
        """u of the picture, and the squared norm of the change of the first layer's output, relative (0 where that is
        0 on the photograph); of copies that are moved by some pixels.
        """
        value = self.read(picture.roll(tuple(moves), (2, 3)))[0]
        own = self._early[0]
        # the photograph itself is needed at the first layer only
        others = self._run_early(self.prepare(self.photograph.roll(tuple(moves), (2, 3))))[0].detach()
        scale = others.square().sum()
        change = (own - others).square().sum()
        return value, change / scale if bool(scale > 0) else 0 * change

    def moved(self, picture: Tensor) -> float:
        with torch.no_grad():
            return float(self.both(picture)[1].sqrt())


def _find(reader: _Reader, photograph: Tensor, before: float, aim: _Aim, space: Space, descent: _Descent) -> Tensor:
    make, parameter = _parametrize(photograph, space)
    generator = torch.Generator().manual_seed(descent.seed)
    optimizer, weight = Adam(parameter), 1.0
    for _ in tqdm(range(descent.steps), desc="accentuation", disable=not descent.progress):
        picture = make(parameter)
        moves = torch.randint(-descent.jitter, descent.jitter + 1, (2,), generator=generator).tolist()
        value, change = reader.both(picture, moves)
        change = change + AWAY * (picture - photograph).square().mean()
        loss = weight * aim.loss(value, before) + descent.strength * change
        if not aim.reached(float(value.detach())):
            weight *= GROWTH
        optimizer.step(*torch.autograd.grad(loss, [parameter]))
    with torch.no_grad():
        return _least(reader, lambda share: make(share * parameter), aim)


class Adam:
    """Adam (Kingma and Ba, 2015) on one parameter by torch's function: ``torch.optim.Adam`` imports torch's compiler in
    its first step, which takes a second.
    """

    def __init__(self, parameter: Tensor, rate: float = RATE) -> None:
        self.parameter, self.rate, self.steps = parameter, rate, torch.tensor(0.0)
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Move the parameter against its gradient."""
        adam(
            [self.parameter], [gradient], [self.mean], [self.square], [], [self.steps], foreach=False, amsgrad=False,
            beta1=DECAYS[0], beta2=DECAYS[1], lr=self.rate, weight_decay=0.0, eps=EPS, maximize=False,
        )  # fmt: skip


def _least(reader: _Reader, at: Callable[[float], Tensor], aim: _Aim) -> Tensor:
    """The least share of the whole change that reaches the goal; the whole one where even that does not."""
    if aim.goal is None or not aim.reached(reader.value(at(1.0))):
        return at(1.0)
    low, high = 0.0, 1.0
    if aim.reached(reader.value(at(0.0))):
        return at(0.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if aim.reached(reader.value(at(middle))) else (middle, high)
    return at(high)


def _parametrize(photograph: Tensor, space: Space) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The picture [1, C, H, W] as a function of a parameter, which is the photograph at 0."""
    height, width = photograph.shape[-2:]
    columns = width // 2 + 1
    if space == "phase":
        spectrum = torch.fft.rfft2(photograph)
        angles = torch.zeros(1, 1, height, columns, device=photograph.device, dtype=photograph.dtype)
        free = torch.ones_like(angles)
        free[..., 0, 0] = 0  # the mean color has no phase

        def turned(parameter: Tensor) -> Tensor:
            turn = torch.polar(torch.ones_like(parameter), parameter * free)
            return _clip(torch.fft.irfft2(spectrum * turn, s=(height, width)))

        return turned, angles.requires_grad_()
    frequencies = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None] ** 2).sqrt()
    scale = (2 / frequencies.clamp(min=1 / max(height, width))).to(photograph)
    zeros = torch.zeros(*photograph.shape[:2], height, columns, 2, device=photograph.device, dtype=photograph.dtype)

    def added(parameter: Tensor) -> Tensor:
        change = torch.fft.irfft2(torch.view_as_complex(parameter) * scale, s=(height, width))
        return _clip(photograph + change)

    return added, zeros.requires_grad_()


def _clip(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1]; the gradient passes, as one that is 0 on black and white would leave them as they are."""
    return pictures + (pictures.clamp(0, 1) - pictures).detach()


def _driven(objective: Any) -> tuple[Term, bool]:
    """The term that an objective drives, and whether down."""
    if isinstance(objective, (Unit, Direction)):
        return Term(objective.at, objective.describe(), objective.select), True
    if isinstance(objective, str) and not objective.strip().startswith("-"):
        return _driven(-as_objective(f"-{objective.strip()}"))
    chosen = as_objective(objective)
    if not isinstance(chosen, AbsenceObjective) or len(chosen.terms) != 1:
        raise TypeError(
            f"{objective!r} does not say which one unit is driven; write '-layer:3' (down), 'layer:3' (up), or one "
            "absence objective"
        )
    return chosen.terms[0], chosen.terms[0].sign > 0


def _checked_data(data_range: Any) -> Tensor | None:
    if data_range is None:
        return None
    data = torch.as_tensor(data_range, dtype=torch.float64).detach().flatten().cpu()
    if data.numel() == 0 or not bool(torch.isfinite(data).all()):
        raise ValueError("data_range must hold the unit's finite values in real data, at least one")
    return data


def _checked_image(image: Any) -> Tensor:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image must be a tensor of floats [C, H, W] in [0, 1], got {type(image).__name__}")
    one = image.detach()[None] if image.dim() == 3 else image.detach()
    if one.dim() != 4 or len(one) != 1:
        raise ValueError(f"image has shape {tuple(image.shape)}; it must be one picture [C, H, W]")
    if not bool(torch.isfinite(one).all()) or float(one.min()) < 0 or float(one.max()) > 1:
        raise ValueError(
            f"image has values from {float(one.min()):.3g} to {float(one.max()):.3g}; pass the picture in [0, 1], and how "
            "the model's inputs are made of it as preprocess="
        )
    return one.clone()


def _preparation(model: nn.Module, preprocess: bool | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if callable(preprocess):
        return preprocess
    if not preprocess:
        return lambda pictures: pictures
    _, transform = load_rendering()
    made = transform.preprocess_inceptionv1() if type(model).__name__ == "InceptionV1" else transform.normalize()
    found: Callable[[Tensor], Tensor] = made
    return found


def _first_weighted(model: nn.Module) -> nn.Module:
    """The first convolution or linear layer, in the order in which modules are defined; else the model."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return next((one for one in plain_model(model).modules() if isinstance(one, kinds)), plain_model(model))
