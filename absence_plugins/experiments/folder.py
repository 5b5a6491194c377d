"""A folder of images as a data set that reads one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.experiments.loading import Preprocessing, image_files


class FolderImages(torch.utils.data.Dataset[Any]):
    """All images below a folder, in order of their names, as the model takes them: float tensors [C, size, size].

    Raises:
        ValueError: no such folder, no images in it; when read: a file that is no image, with its name.

    Attributes:
        files: the images' paths.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        if not folder.is_dir():
            raise ValueError(f"folder {folder} does not exist")
        self.files = image_files(folder)
        if not self.files:
            raise ValueError(f"folder {folder} holds no images")
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocessing.normalize(self.preprocessing.picture(self.files[index]))
