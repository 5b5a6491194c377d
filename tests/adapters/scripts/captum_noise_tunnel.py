"""SmoothGrad over gradients and over integrated gradients, ten classes."""

import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 49, 10)).eval()
images, labels = torch.rand(2, 3, 16, 16), torch.tensor([3, 8])

smooth = NoiseTunnel(Saliency(model))
ig = NoiseTunnel(IntegratedGradients(model))
maps, delta = ig.attribute(
    images, nt_type="smoothgrad", nt_samples=3, stdevs=0.1, target=labels, n_steps=10, return_convergence_delta=True
)
result = {
    "saliency": smooth.attribute(images, nt_samples=4, stdevs=0.15, target=labels),
    "in chunks": smooth.attribute(images, nt_samples=4, nt_samples_batch_size=2, target=labels),
    "ig": maps,
    "delta": delta,
}
