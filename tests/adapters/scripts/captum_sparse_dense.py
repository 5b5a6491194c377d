"""Click rates from numbers and categories: dense columns and looked-up embeddings, one sigmoid (DLRM's shape)."""

import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerIntegratedGradients
from torch import nn

torch.manual_seed(0)


class Clicks(nn.Module):
    def __init__(self):
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.tables = nn.ModuleList(nn.EmbeddingBag(10, 6, mode="sum") for _ in range(3))
        self.top = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())

    def rate(self, dense, *embedded):
        """[B]: from the dense columns and the looked-up rows."""
        one = self.bottom(dense)
        every = torch.stack([one, *embedded], 1)
        pairs = (every @ every.mT)[:, *torch.triu_indices(4, 4, 1)]
        return self.top(torch.cat([one, pairs], 1)).squeeze(1)

    def forward(self, dense, sparse):
        return self.rate(dense, *(table(sparse[:, k, None]) for k, table in enumerate(self.tables)))


model, dense, sparse = Clicks().eval(), torch.rand(5, 4), torch.randint(0, 10, (5, 3))
embedded = tuple(table(sparse[:, k, None]).detach() for k, table in enumerate(model.tables))
numbers, *categories = IntegratedGradients(model.rate).attribute((dense, *embedded), n_steps=20)
ablated = FeatureAblation(model).attribute((dense, sparse))
table = LayerIntegratedGradients(model, model.tables[0]).attribute((dense, sparse), n_steps=20)
result = {"dense": numbers, "first": categories[0], "ablated": ablated[0], "sparse off": ablated[1], "table": table}
