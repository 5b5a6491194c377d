"""Labels of concepts from what people have: tables of images, and the files of public data sets.

Every reader returns an :class:`ImageLabels`: concepts [N, K] with NaN where it is not known whether one is there.
"""

from absence_plugins.data.labels.annotations import read_coco, read_invert, read_open_images
from absence_plugins.data.labels.broden import read_broden, read_broden_masks
from absence_plugins.data.labels.image_labels import ImageLabels, stack_truths
from absence_plugins.data.labels.image_tables import read_celeba, read_cub, read_image_table

__all__ = [
    "ImageLabels",
    "read_broden",
    "read_broden_masks",
    "read_celeba",
    "read_coco",
    "read_cub",
    "read_image_table",
    "read_invert",
    "read_open_images",
    "stack_truths",
]
