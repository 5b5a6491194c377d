"""A signal of 64 steps, three classes, a 1-D convolution: which stretch of time was decisive?"""

import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv1d(2, 8, 7, padding=3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 5, padding=2), nn.ReLU(),
    nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3),
).eval()  # fmt: skip
signals = torch.randn(4, 2, 64).cumsum(2)
labels = torch.tensor([0, 1, 2, 1])

maps = IntegratedGradients(model).attribute(signals, target=labels)
windows = Occlusion(model).attribute(signals, target=labels, sliding_window_shapes=(2, 8), strides=(2, 4))
cam = LayerGradCam(model, model[3]).attribute(signals, target=labels)
result = {"ig": maps.abs().sum(1), "windows": windows[:, 0], "cam": cam.squeeze(1)}
