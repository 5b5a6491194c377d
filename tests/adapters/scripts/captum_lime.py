"""LIME with superpixels and a linear model, and with a kernel and sampling of one's own."""

import torch
from captum._utils.models.linear_model import SkLearnLasso, SkLearnLinearRegression
from captum.attr import Lime, LimeBase
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
image = torch.rand(1, 3, 8, 8)
mask = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8)[None] // 4)[None, None].expand(1, 3, 8, 8)

lime = Lime(
    model,
    interpretable_model=SkLearnLinearRegression(),
    similarity_func=get_exp_kernel_similarity_function("euclidean", kernel_width=1000),
)
superpixels = lime.attribute(image, target=2, feature_mask=mask, n_samples=30, perturbations_per_eval=10)


def similarity(original, perturbed, interpretable, **kwargs):
    return torch.exp(-(original - perturbed).norm() / 10)


base = LimeBase(
    model,
    SkLearnLasso(alpha=0.001),
    similarity,
    lambda original, **kwargs: torch.bernoulli(torch.full((1, 4), 0.5)),
    perturb_interpretable_space=True,
    from_interp_rep_transform=lambda sample, original, **kwargs: original * sample[0][mask],
    to_interp_rep_transform=None,
)
result = {"superpixels": superpixels, "base": base.attribute(image, target=2, n_samples=30)}
