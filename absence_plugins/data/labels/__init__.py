"""Labels of concepts from what people have: tables of images, and the files of public data sets.

Every reader returns an :class:`ImageLabels`: concepts [N, K] with NaN where it is not known whether one is there.
"""

from absence_plugins.data.labels.annotations import (
    read_coco,
    read_invert,
    read_invert_parents,
    read_open_images,
)
from absence_plugins.data.labels.broden import read_broden, read_broden_masks
from absence_plugins.data.labels.image_labels import ImageLabels, stack_truths
from absence_plugins.data.labels.image_tables import read_celeba, read_cub, read_image_table, read_score_table
from absence_plugins.data.labels.sources import read_labels, recognize_labels
from absence_plugins.data.labels.synsets import Synset, find_parents, find_synsets, name_synsets

__all__ = [
    "ImageLabels",
    "Synset",
    "find_parents",
    "find_synsets",
    "name_synsets",
    "read_broden",
    "read_broden_masks",
    "read_celeba",
    "read_coco",
    "read_cub",
    "read_image_table",
    "read_invert",
    "read_invert_parents",
    "read_labels",
    "read_open_images",
    "read_score_table",
    "recognize_labels",
    "stack_truths",
]
