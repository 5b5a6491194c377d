"""Which words of a prompt made a language model say this? One score per answer token, and of the whole answer."""

import torch
from captum.attr import (
    FeatureAblation,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMGradientAttribution,
    TextTokenInput,
)
from transformers import GPT2Config, GPT2LMHeadModel

WORDS = "<pad> Dave lives in Palm Coast , and likes golf".split()


class Tokenizer:
    """Words in a list, in the manner of a pretrained tokenizer."""

    def encode(self, text, return_tensors=None, **kwargs):
        ids = [WORDS.index(word) for word in text.split()]
        return torch.tensor([ids]) if return_tensors == "pt" else ids

    def decode(self, ids, **kwargs):
        return " ".join(self.convert_ids_to_tokens(ids))

    def convert_ids_to_tokens(self, ids):
        return [WORDS[k] for k in torch.as_tensor(ids).flatten().tolist()]

    def convert_tokens_to_ids(self, tokens):
        return WORDS.index(tokens) if isinstance(tokens, str) else [WORDS.index(word) for word in tokens]

    def __call__(self, text, **kwargs):
        starts = [0] + [k + 1 for k, letter in enumerate(text) if letter == " "]
        spans = [(start, start + len(word)) for start, word in zip(starts, text.split(), strict=True)]
        return {"input_ids": self.encode(text), "offset_mapping": spans}


torch.manual_seed(0)
config = GPT2Config(
    vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
)
model, tokenizer = GPT2LMHeadModel(config).eval(), Tokenizer()
prompt = TextTokenInput("Dave lives in Palm Coast", tokenizer, baselines="<pad>")
ablation = LLMAttribution(FeatureAblation(model), tokenizer).attribute(prompt, target="and likes golf")
gradients = LLMGradientAttribution(LayerIntegratedGradients(model, model.transformer.wte), tokenizer)
path = gradients.attribute(TextTokenInput("Dave lives in Palm Coast", tokenizer), target="and likes golf", n_steps=10)
result = {"answer": ablation.seq_attr, "tokens": ablation.token_attr, "path": path.token_attr}
