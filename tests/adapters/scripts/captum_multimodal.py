"""An image and a question, one answer of five: both inputs in one call, as a tuple."""

import torch
from captum.attr import IntegratedGradients
from torch import nn

torch.manual_seed(0)


class Answers(nn.Module):
    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.words, self.read = nn.Embedding(20, 6), nn.LSTM(6, 16, batch_first=True)
        self.answer = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, image, embedded, lengths):
        states = self.read(embedded)[0]
        last = states[torch.arange(len(embedded)), lengths[0] - 1]
        return self.answer(self.look(image) * last)


model = Answers().eval()
image, question, lengths = torch.rand(2, 3, 12, 12), torch.randint(1, 20, (2, 5)), torch.tensor([[4]])
embedded, blank = model.words(question), model.words(question * 0)
answers = model(image, embedded, lengths).argmax(1)

on_image, on_words = IntegratedGradients(model).attribute(
    (image, embedded),
    baselines=(image * 0, blank),
    target=answers,
    additional_forward_args=(lengths,),
    n_steps=20,
)
result = {"image": on_image.sum(1), "words": on_words.sum(2)}
