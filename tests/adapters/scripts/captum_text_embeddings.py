"""Reviews of films, one sigmoid at the end: words attributed at an interpretable embedding."""

import torch
from captum.attr import (
    IntegratedGradients,
    TokenReferenceBase,
    configure_interpretable_embedding_layer,
    remove_interpretable_embedding_layer,
    visualization,
)
from torch import nn

torch.manual_seed(0)
words = {word: number for number, word in enumerate("<pad> it was a fantastic terrible film best ever".split())}


class Reviews(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(words), 6)
        self.convs = nn.ModuleList(nn.Conv2d(1, 4, (size, 6)) for size in (2, 3))
        self.fc, self.dropout = nn.Linear(8, 1), nn.Dropout(0.5)

    def forward(self, tokens):
        embedded = self.embedding(tokens).unsqueeze(1)
        pooled = [conv(embedded).squeeze(3).relu().amax(2) for conv in self.convs]
        return torch.sigmoid(self.fc(self.dropout(torch.cat(pooled, 1))))


model = Reviews().eval()
layer = configure_interpretable_embedding_layer(model, "embedding")
ig, reference = IntegratedGradients(model), TokenReferenceBase(reference_token_idx=words["<pad>"])
records, result = [], {}
for sentence in ("it was a fantastic film", "terrible film"):
    tokens = torch.tensor([[words[word] for word in sentence.split()] + [0] * (6 - len(sentence.split()))])
    start = reference.generate_reference(6, device="cpu").unsqueeze(0)
    score = model(layer.indices_to_embeddings(tokens)).item()
    maps, delta = ig.attribute(
        layer.indices_to_embeddings(tokens),
        layer.indices_to_embeddings(start),
        n_steps=50,
        return_convergence_delta=True,
    )
    per_word = maps.sum(2).squeeze(0)
    per_word = (per_word / per_word.norm()).detach()
    records.append(
        visualization.VisualizationDataRecord(
            per_word, score, round(score), 1, "pos", per_word.sum(), sentence.split(), delta
        )
    )
    result[sentence] = per_word
remove_interpretable_embedding_layer(model, layer)
