"""Scores per class and pixel, [B, K, H, W]: a wrapper sums each class over the pixels it was predicted on."""

import torch
from captum.attr import FeatureAblation, LayerActivation, LayerAttribution, LayerGradCam, Saliency
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Upsample(scale_factor=2)).eval()
image = torch.rand(1, 3, 16, 16)
predicted = model(image).argmax(dim=1, keepdim=True)
largest = int(predicted.flatten().bincount().argmax())


def summed(inp):
    """[B, K]: of every class the sum of its scores where the image was given that class."""
    scores = model(inp)
    chosen = torch.zeros_like(scores[0:1]).scatter_(1, predicted, 1)
    return (scores * chosen).sum(dim=(2, 3))


cam = LayerGradCam(summed, model[0]).attribute(image, target=largest)
upsampled = LayerAttribution.interpolate(cam, image.shape[2:])
activations = LayerActivation(summed, model[0]).attribute(image)
ablated = FeatureAblation(summed).attribute(image, feature_mask=predicted, perturbations_per_eval=2, target=largest)
pixel = Saliency(model).attribute(image, target=(largest, 8, 8))
result = {"cam": upsampled, "activations": activations, "ablated": ablated, "pixel": pixel}
