"""What the folder of a killed fit belongs to: the features, by some of their images, and what was asked for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions.features import Features
from absence_plugins.methods.directions.recipe import Options
from absence_plugins.methods.identity import digest_of

SPOTS = 16  # images whose features are compared
FORM = ("n_directions", "seed")  # of the options: what sources depend on


def open_fit(folder: Path | str | None, features: Features, options: Options) -> Checkpoint | None:
    """The checkpoint of a fit; None without a folder.

    Raises:
        ValueError: the folder holds another fit: other features, another number of directions or seed.
    """
    if folder is None:
        return None
    count = features.shape[0]
    spots = torch.linspace(0, count - 1, min(SPOTS, count)).long()
    asked = asdict(options)
    settings = {
        **{name: asked[name] for name in FORM},
        "shape": list(features.shape),
        "features": digest_of(features.batch(spots).cpu()),
    }
    return Checkpoint(folder, settings, "directions")
