"""Token ids go in, four classes come out: words attributed at the embedding layer."""

import torch
from captum.attr import LayerIntegratedGradients
from torch import nn

torch.manual_seed(0)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn, self.fc = nn.Embedding(30, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, tokens):
        return self.fc(self.rnn(self.embedding(tokens))[1][-1])


model, tokens = Tagger().eval(), torch.randint(1, 30, (3, 7))
lig = LayerIntegratedGradients(model, model.embedding)
maps, delta = lig.attribute(
    tokens, baselines=torch.zeros_like(tokens), target=2, n_steps=40, return_convergence_delta=True
)
predicted = lig.attribute(tokens, target=model(tokens).argmax(1))
result = {"words": maps.sum(2), "delta": delta, "predicted": predicted.sum(2)}
