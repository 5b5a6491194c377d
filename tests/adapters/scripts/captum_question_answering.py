"""A transformer marks the start and the end of an answer: two heads, attributed at the embeddings (BERT, SQuAD)."""

import torch
from captum.attr import LayerIntegratedGradients
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering

torch.manual_seed(0)
config = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16, attn_implementation="eager",
)  # fmt: skip
model = BertForQuestionAnswering(config).eval()
nn.init.normal_(model.qa_outputs.weight)
tokens = torch.tensor([[2, 11, 12, 13, 3, 21, 22, 23, 24, 3]])
blank, mask = torch.tensor([[2, 0, 0, 0, 3, 0, 0, 0, 0, 3]]), torch.ones_like(tokens)


def best(inputs, attention_mask=None, position=0):
    """[B]: the highest score of the start (0) or of the end (1)."""
    found = model(inputs, attention_mask=attention_mask)
    return found[position].max(1).values


result = {}
embeddings = LayerIntegratedGradients(best, model.bert.embeddings)
for position, name in enumerate(("start", "end")):
    maps, delta = embeddings.attribute(
        inputs=tokens,
        baselines=blank,
        additional_forward_args=(mask, position),
        return_convergence_delta=True,
        n_steps=20,
    )
    result[name] = maps.sum(dim=-1).squeeze(0)
    result[f"{name}, delta"] = delta
