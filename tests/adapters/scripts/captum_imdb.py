"""Sentiment of reviews: a convolutional network on words, one sigmoid, integrated gradients at the embedding layer."""

import torch
from captum.attr import LayerIntegratedGradients, TokenReferenceBase, visualization
from torch import nn

torch.manual_seed(0)
words = "<unk> <pad> it was a fantastic performance ! best film ever terrible never watch".split()
vocabulary = {word: number for number, word in enumerate(words)}
label = {0: "neg", 1: "pos"}


class CNN(nn.Module):
    def __init__(self, dimensions=6, filters=8, sizes=(3, 4, 5)):
        super().__init__()
        self.embedding = nn.Embedding(len(words), dimensions)
        self.convs = nn.ModuleList([nn.Conv2d(1, filters, (size, dimensions)) for size in sizes])
        self.fc, self.dropout = nn.Linear(len(sizes) * filters, 1), nn.Dropout(0.5)

    def forward(self, text):
        embedded = self.embedding(text).unsqueeze(1)
        conved = [nn.functional.relu(conv(embedded)).squeeze(3) for conv in self.convs]
        pooled = [nn.functional.max_pool1d(conv, conv.shape[2]).squeeze(2) for conv in conved]
        return self.fc(self.dropout(torch.cat(pooled, dim=1)))


model = CNN().eval()
token_reference = TokenReferenceBase(reference_token_idx=vocabulary["<pad>"])
lig = LayerIntegratedGradients(model, model.embedding)
vis_data_records_ig, result = [], {}


def forward_with_sigmoid(input):
    return torch.sigmoid(model(input))


def interpret_sentence(model, sentence, min_len=7, label_number=0):
    text = sentence.lower().split()
    text += ["<pad>"] * (min_len - len(text))
    indexed = [vocabulary.get(token, 0) for token in text]
    model.zero_grad()
    input_indices = torch.tensor(indexed).unsqueeze(0)
    pred = forward_with_sigmoid(input_indices).item()
    reference_indices = token_reference.generate_reference(min_len, device="cpu").unsqueeze(0)
    attributions_ig, delta = lig.attribute(input_indices, reference_indices, n_steps=100, return_convergence_delta=True)
    add_attributions_to_visualizer(attributions_ig, text, pred, round(pred), label_number, delta)


def add_attributions_to_visualizer(attributions, text, pred, pred_ind, label_number, delta):
    attributions = attributions.sum(dim=2).squeeze(0)
    attributions = attributions / torch.norm(attributions)
    attributions = attributions.cpu().detach().numpy()
    vis_data_records_ig.append(
        visualization.VisualizationDataRecord(
            attributions, pred, label[pred_ind], label[label_number], label[1], attributions.sum(), text, delta
        )
    )
    result[" ".join(text)] = attributions


interpret_sentence(model, "It was a fantastic performance !", label_number=1)
interpret_sentence(model, "Best film ever", label_number=1)
interpret_sentence(model, "It was a terrible film", label_number=0)
shown = visualization.visualize_text(vis_data_records_ig)
