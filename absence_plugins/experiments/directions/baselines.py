"""What else one would try: decompositions, clusters, a sparse autoencoder, and directions from labels.

The baselines are given what they would not have: the threshold, sign and scale of every component that fit the truth
best, and, for Pattern-CAV, the labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import PRESENT, SyntheticDirections
from absence_plugins.experiments.directions.recovery import Recovery, compare
from absence_plugins.methods.directions.features import MemoryFeatures
from absence_plugins.methods.directions.signals import estimate_signals, selected
from absence_plugins.methods.directions.starts import kmeans
from absence_plugins.methods.directions.whitening import fit_whitening

Array = NDArray[np.float64]
Components = tuple[Array, Array]  # codes [P, J], components [J, D]
SAE_STEPS, SAE_RATE, SAE_BATCH, SAE_WIDTH, SAE_ACTIVE = 1500, 3e-3, 512, 4, 4
SEPARATOR_STEPS, CLUSTERINGS = 100, 8
QUANTILES = 40


def pca(x: Array, count: int, seed: int) -> Components:
    """Codes and components of principal component analysis."""
    from sklearn.decomposition import PCA  # type: ignore[import-untyped,unused-ignore]

    fitted = PCA(count, random_state=seed).fit(x)
    return fitted.transform(x), fitted.components_


def ica(x: Array, count: int, seed: int) -> Components:
    """FastICA of scikit-learn in as many components as the features have beyond noise; encodings: the mixing matrix."""
    from sklearn.decomposition import FastICA

    rank = fit_whitening(MemoryFeatures(torch.from_numpy(x)[:, None, None])).rank
    fitted = FastICA(max(count, rank), random_state=seed, whiten="unit-variance", max_iter=500)
    return fitted.fit_transform(x), fitted.mixing_.T


def nmf(x: Array, count: int, seed: int) -> Components:
    """Non-negative factors of the features above their minimum, with two more than concepts for the distractors."""
    from sklearn.decomposition import NMF

    fitted = NMF(count + 2, random_state=seed, max_iter=400)
    codes = fitted.fit_transform(x - x.min(0))
    return codes, fitted.components_


def raw_kmeans(x: Array, count: int, seed: int) -> Components:
    """Clusters of the raw features: minus the distance to a center, and the center seen from the mean."""
    centers = kmeans(torch.from_numpy(x), count, torch.Generator().manual_seed(seed)).numpy()
    distances = np.linalg.norm(x[:, None] - centers, axis=2)
    others = np.stack([np.delete(distances, j, 1).min(1) for j in range(count)], 1)
    return others - distances, centers - x.mean(0)


def sparse_autoencoder(x: Array, count: int, seed: int) -> Components:
    """A top-k sparse autoencoder: four latents per concept, the 4 largest of a position stay; unit decoder columns.

    On centered, scaled features. Source: Gao et al., Scaling and evaluating sparse autoencoders (2024), without their
    auxiliary loss.
    """
    generator = torch.Generator().manual_seed(seed)
    data = torch.from_numpy(x).float()
    data = (data - data.mean(0)) / data.std()
    dimensions, latents = data.shape[1], SAE_WIDTH * count
    decoder = F.normalize(torch.randn(latents, dimensions, generator=generator), dim=1)
    parameters = [decoder.clone(), torch.zeros(latents), decoder.clone(), torch.zeros(dimensions)]
    encode, bias, decode, offset = (one.requires_grad_() for one in parameters)
    optimizer = torch.optim.Adam([encode, bias, decode, offset], lr=SAE_RATE)

    def codes_of(batch: Tensor) -> Tensor:
        values = ((batch - offset) @ encode.T + bias).relu()
        top = values.topk(min(SAE_ACTIVE, latents), dim=1)
        return torch.zeros_like(values).scatter(1, top.indices, top.values)

    with torch.enable_grad():
        for _ in range(SAE_STEPS):
            batch = data[torch.randint(len(data), (SAE_BATCH,), generator=generator)]
            rebuilt = codes_of(batch) @ F.normalize(decode, dim=1) + offset
            loss = ((rebuilt - batch) ** 2).sum(1).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    with torch.no_grad():
        return codes_of(data).double().numpy(), F.normalize(decode, dim=1).double().numpy()


DECOMPOSITIONS: dict[str, Callable[[Array, int, int], Components]] = {
    "PCA": pca,
    "ICA": ica,
    "NMF": nmf,
    "k-means": raw_kmeans,
    "top-k autoencoder": sparse_autoencoder,
}


def decomposed(name: str, data: SyntheticDirections, seed: int = 0) -> Recovery:
    """One of DECOMPOSITIONS on synthetic data, every component with its best threshold, sign and scale."""
    x = data.features.flatten(0, 2).double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that did not converge: that is a result, too
        codes, components = DECOMPOSITIONS[name](x, data.encoding.shape[1], seed)
    return _in_hindsight(data, torch.from_numpy(codes).double(), torch.from_numpy(components).double())


def whitened_kmeans(data: SyntheticDirections, seed: int = 0) -> Recovery:
    """The strong cheap one: clusters of whitened features, a logistic separator of each, the same signal estimator.

    Blind to the head: it cannot tell concepts that the network uses from equally structured ones that it ignores.
    """
    whitening = fit_whitening(MemoryFeatures(data.features))
    x = whitening(data.features).flatten(0, 2)
    generator = torch.Generator().manual_seed(seed)
    runs = [kmeans(x, data.encoding.shape[1], generator) for _ in range(CLUSTERINGS)]
    spread = [float(torch.cdist(x, centers).amin(1).square().mean()) for centers in runs]
    member = torch.cdist(x, runs[int(np.argmin(spread))]).argmin(1)
    logits = _separate(x, member, data.encoding.shape[1])
    signals = estimate_signals(x.double(), logits.double(), selected(logits, "exclusive"))
    signals = whitening.backward.T @ signals
    return compare(data, logits > 0, F.normalize(signals, dim=0), logits * signals.norm(dim=0))


def _separate(x: Tensor, member: Tensor, clusters: int) -> Tensor:
    """Logits [P, I] of one logistic regression per cluster, all of them fitted together, with a unit weight decay."""
    hot = F.one_hot(member, clusters).to(x.dtype)
    weight = torch.zeros(x.shape[1], clusters, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(clusters, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=SEPARATOR_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weight + bias, hot, reduction="sum") + 0.5 * (weight**2).sum()
        torch.autograd.backward(value / len(x))
        return value / len(x)

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return (x @ weight + bias).detach()


def pattern_cav(data: SyntheticDirections, seed: int = 0) -> Recovery:
    """Pattern-CAV (Pahde et al., ICLR 2025): cov(x, label) / var(label). Needs labels; ``seed`` changes nothing."""
    x = data.features.flatten(0, 2).double()
    labels = data.present.flatten(0, 2).double()
    centered = labels - labels.mean(0)
    patterns = F.normalize((x - x.mean(0)).T @ centered, dim=0)
    return _in_hindsight(data, x @ patterns, patterns.T)


def _in_hindsight(data: SyntheticDirections, codes: Tensor, components: Tensor) -> Recovery:
    """Codes [P, J], components [J, D] with the sign, threshold and scale that fit the truth best."""
    present = data.present.flatten(0, 2)
    truth = data.signal_values.flatten(0, 2).double() - PRESENT[0]
    best: dict[tuple[int, int], tuple[float, float, float]] = {}
    for j in range(codes.shape[1]):
        for sign in (1.0, -1.0):
            values = sign * codes[:, j]
            cuts = torch.quantile(values, torch.linspace(0.02, 0.98, QUANTILES, dtype=torch.float64))
            fires = (values[:, None] > cuts).double()
            together = present.double().T @ fires
            iou = together / (present.sum(0)[:, None] + fires.sum(0) - together).clamp(min=1)
            for concept in range(present.shape[1]):
                top = int(iou[concept].argmax())
                found = (float(iou[concept, top]), float(cuts[top]), sign)
                best[concept, j] = max(best.get((concept, j), (-1.0, 0.0, 1.0)), found)
    score = np.array([[best[c, j][0] for j in range(codes.shape[1])] for c in range(present.shape[1])])
    chosen = dict(zip(*(side.tolist() for side in linear_sum_assignment(-score)), strict=True))
    detected, values_of, encoding = [], [], []
    for concept in range(present.shape[1]):
        j = chosen[concept]
        _, cut, sign = best[concept, j]
        code = sign * codes[:, j]
        detected.append(code > cut)
        design = torch.stack([code, torch.ones_like(code)], 1)
        fitted = design @ torch.linalg.lstsq(design, truth[:, concept, None]).solution[:, 0]
        values_of.append(data.unit[concept] * fitted)
        encoding.append(F.normalize(sign * components[j], dim=0))
    return compare(data, torch.stack(detected, 1), torch.stack(encoding, 1), torch.stack(values_of, 1))


BASELINES: dict[str, Callable[..., Recovery]] = {
    **{name: (lambda data, seed=0, name=name: decomposed(name, data, seed)) for name in DECOMPOSITIONS},
    "k-means + logistic": whitened_kmeans,
    "Pattern-CAV (labels)": pattern_cav,
}


def baseline(name: str, data: SyntheticDirections, seed: int = 0) -> Recovery:
    """Any of BASELINES. Raises ValueError for another name."""
    if name not in BASELINES:
        raise ValueError(f"baseline {name!r} is unknown; use one of {', '.join(BASELINES)}")
    found: Any = BASELINES[name](data, seed=seed)
    assert isinstance(found, Recovery)
    return found
