"""The next value of a series by an LSTM: one number per sample, [B]."""

import torch
from captum.attr import GradientShap, IntegratedGradients, Saliency
from torch import nn

torch.manual_seed(0)


class Forecast(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 10, batch_first=True), nn.Linear(10, 1)

    def forward(self, series):
        return self.linear(self.lstm(series)[0][:, -1]).squeeze(-1)


model, series = Forecast().eval(), torch.randn(5, 20, 3)
maps, delta = IntegratedGradients(model).attribute(series, baselines=series * 0, return_convergence_delta=True)
result = {
    "ig": maps.mean(0),
    "delta": delta,
    "saliency": Saliency(model).attribute(series, abs=False),
    "shap": GradientShap(model).attribute(series, baselines=torch.randn(8, 20, 3), n_samples=4),
}
