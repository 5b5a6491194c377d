"""The adapters inside noise tunnels."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_table import (
    CLOSE,
    FLIPPING,
    linear,
    random_states,
    seeded,
)
from captum import attr
from captum.attr import NoiseTunnel
from captum.log import log_usage
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("batch", [None, 1, 3, 20])
def test_noise_does_not_choose_the_non_target_again(batch: int | None) -> None:
    seeded()
    noisy = CLOSE + torch.randn(50, 2, 2, dtype=torch.float64)
    assert 0.2 < float((FLIPPING(noisy)[..., 1] > FLIPPING(noisy)[..., 2]).double().mean()) < 0.8  # noise would
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING))
    for targets in (0, torch.tensor([0, 0])):
        found = tunnel.attribute(CLOSE, nt_samples=10, stdevs=1.0, target=targets, nt_samples_batch_size=batch)
        assert found.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    fixed = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING, nontarget=torch.tensor([2, 1])))
    assert fixed.attribute(CLOSE, nt_samples=10, target=0, nt_samples_batch_size=batch).tolist() == [[0, 1], [1, 0]]


def chain(frames: int, function: Callable[[], Any]) -> Any:
    return function() if frames == 0 else chain(frames - 1, function)


class Deep(adapters.AbsenceSaliency):
    """A subclass that retries, caches or times the call, with any number of frames in between."""

    frames = 40

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return chain(self.frames, lambda: super(Deep, self).attribute(*args, **kwargs))


class Threaded(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().attribute, *args, **kwargs).result()


class Delegating(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return adapters.AbsenceSaliency(FLIPPING).attribute(*args, **kwargs)


class Clamping(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().attribute(inputs.clamp(-9, 9), *args, **kwargs)


class Halving(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        return torch.cat([super(Halving, self).attribute(half, *args, **kwargs) for half in inputs.chunk(2)])


class Labeled(NoiseTunnel):
    """A user's own tunnel."""


class Outer(adapters.AbsenceSaliency):
    """Asks the host's class what a tunnel asks."""

    def has_convergence_delta(self) -> bool:
        return chain(30, lambda: super(Outer, self).has_convergence_delta())  # type: ignore[no-any-return]


EXPECTED = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("method", [Deep, Threaded, Delegating, Clamping, Outer])
@pytest.mark.parametrize("batch", [None, 3])
def test_the_real_input_is_known_whatever_stands_between_tunnel_and_method(method: Any, batch: int | None) -> None:
    seeded()
    found = NoiseTunnel(method(FLIPPING)).attribute(CLOSE, nt_samples=10, target=0, nt_samples_batch_size=batch)
    assert found.tolist() == EXPECTED


def test_copies_pickles_and_tunnels_in_tunnels_know_the_real_input() -> None:
    seeded()
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING))
    own = Labeled(adapters.AbsenceSaliency(FLIPPING))
    made = [tunnel, own, copy.copy(tunnel), copy.deepcopy(own), pickle.loads(pickle.dumps(tunnel)),
            pickle.loads(pickle.dumps(own)), adapters.AbsenceNoiseTunnel(adapters.AbsenceSaliency(FLIPPING)),
            NoiseTunnel(tunnel), NoiseTunnel(own), NoiseTunnel(NoiseTunnel(own))]  # fmt: skip
    for one in made:
        assert one.attribute(CLOSE, nt_samples=10, target=0).tolist() == EXPECTED
        assert isinstance(one, NoiseTunnel)
    assert all(isinstance(one, Labeled) for one in (made[1], made[3], made[5]))


def test_tunnels_around_other_objects_stay_captums() -> None:
    for inner in (attr.Saliency(FLIPPING), adapters.AbsenceSaliency(FLIPPING, nontarget=None)):
        assert type(NoiseTunnel(inner)) is NoiseTunnel


def test_copies_of_an_unknown_input_are_an_error() -> None:
    """Rather than a non-target for each copy."""
    with pytest.raises(ValueError, match=r"may be noisy copies.*all in one call"):
        NoiseTunnel(Halving(FLIPPING)).attribute(CLOSE, nt_samples=10, target=0)
    exchanged = NoiseTunnel(attr.Saliency(FLIPPING))
    exchanged.attribution_method = adapters.AbsenceSaliency(FLIPPING)
    with pytest.raises(ValueError, match="copies of an unknown input: make the tunnel anew"):
        exchanged.attribute(CLOSE, nt_samples=10, target=0)
    assert adapters.AbsenceSaliency(FLIPPING).attribute(CLOSE, target=0).tolist() == EXPECTED  # nothing is left behind


def test_a_raising_tunnel_leaves_no_state() -> None:
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING))
    with pytest.raises(ValueError, match="target 9"):
        tunnel.attribute(CLOSE, nt_samples=4, target=9)
    noisy = CLOSE.repeat_interleave(4, 0) + 1.0  # looks like copies, but no tunnel runs
    assert adapters.AbsenceSaliency(FLIPPING).attribute(noisy, target=0).shape == noisy.shape


def test_saliency_stays_signed_in_the_tunnel() -> None:
    net = linear([[0.0, 0.0], [1.0, -2.0]])
    assert NoiseTunnel(adapters.AbsenceSaliency(net)).attribute(CLOSE, target=0).tolist() == [[1.0, -2.0]] * 2
    assert adapters.AbsenceSaliency(net).attribute(CLOSE, target=0).tolist() == [[1.0, -2.0]] * 2
    assert adapters.AbsenceSaliency(net, evidence="absence").attribute(CLOSE, target=0).tolist() == [[0.0, 2.0]] * 2


@pytest.mark.parametrize("kind", ["smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("batch", [None, 2])
def test_tunnels_that_square_give_the_hosts_map_of_the_chosen_output(kind: str, batch: int | None) -> None:
    options = {"nt_type": kind, "nt_samples": 5, "nt_samples_batch_size": batch, "stdevs": 0.5}
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    host = NoiseTunnel(attr.IntegratedGradients(net))
    seeded()
    expected = host.attribute(CLOSE, target=torch.tensor([1, 2]), **options)
    seeded()
    tunnel = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, nontarget=[1, 2]))
    words = f"nt_type='{kind}' has no sign.*AbsenceIntegratedGradients chose"
    with pytest.warns(AbsenceWarning, match=words) as caught:
        found = tunnel.attribute(CLOSE, target=0, **options)
    assert torch.equal(found, expected)
    assert [Path(one.filename).name for one in caught if "no sign" in str(one.message)] == [Path(__file__).name]
    plain = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, nontarget=None))
    seeded()
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        assert torch.equal(plain.attribute(CLOSE, target=torch.tensor([1, 2]), **options), expected)


@pytest.mark.parametrize("kind", ["smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("evidence", ["absence", "presence"])
def test_tunnels_that_square_have_no_parts(kind: str, evidence: str) -> None:
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING, evidence=evidence))
    with pytest.raises(ValueError, match=f"nt_type='{kind}' has no sign, so it has no {evidence} part"):
        tunnel.attribute(CLOSE, nt_type=kind, target=0)


@pytest.mark.parametrize("batch", [None, 3])
def test_references_in_the_tunnel_belong_to_the_real_input(batch: int | None) -> None:
    """Noise of size 1 would flip the nearest of the two, which lie on either side."""
    net, x = linear([[1.0, -1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.2]], dtype=torch.float64)
    pool = ReferenceSet(torch.tensor([[1.0, 2.0], [1.0, -2.1]]), torch.tensor([1, 1]), k=1)
    options = {"nt_samples": 7, "stdevs": 1.0, "target": 0, "nt_samples_batch_size": batch}
    seeded()
    tunnel = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, reference=pool))
    found, state = tunnel.attribute(x, **options), random_states()
    seeded()
    host = NoiseTunnel(attr.IntegratedGradients(net))
    expected = host.attribute(x, baselines=torch.tensor([[1.0, 2.0]] * 2).double(), **options)
    assert torch.equal(found, expected)
    assert random_states() == state
    absent = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, reference=pool, evidence="absence"))
    assert absent.attribute(x, **options)[:, 1].min() > 1.0
    assert absent.attribute(x, **options)[:, 0].abs().max() < 1e-12


def test_the_tunnel_repeats_additional_arguments() -> None:
    """Tensors come once per noisy copy, lists as they are; the choice sees the real sample's own."""

    class Shifted(nn.Module):
        def forward(self, x: Tensor, shift: Tensor, mode: list[int]) -> Tensor:
            assert mode == [1, 2, 3]
            return FLIPPING(x) + shift  # type: ignore[no-any-return]

    shift = torch.tensor([[0.0, 0.0, 5.0], [0.0, 5.0, 0.0]])  # turns both runners-up round
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(Shifted()))
    found = tunnel.attribute(CLOSE, target=0, additional_forward_args=(shift, [1, 2, 3]))
    assert found.tolist() == [[0.0, 1.0], [1.0, 0.0]]
