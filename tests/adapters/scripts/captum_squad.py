"""Questions about a text, BERT: all embeddings together, the embeddings one by one, and every layer's conductance."""

import torch
from captum.attr import LayerConductance, LayerIntegratedGradients
from captum.attr import visualization as viz
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering

torch.manual_seed(0)
config = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16, attn_implementation="eager",
)  # fmt: skip
model = BertForQuestionAnswering(config).eval()
nn.init.normal_(model.qa_outputs.weight)
ref_token_id, sep_token_id, cls_token_id = 0, 3, 2
question_ids, text_ids = [11, 12, 13], [21, 22, 23, 24, 25]


def predict(inputs, token_type_ids=None, position_ids=None, attention_mask=None):
    output = model(inputs, token_type_ids=token_type_ids, position_ids=position_ids, attention_mask=attention_mask)
    return output.start_logits, output.end_logits


def squad_pos_forward_func(inputs, token_type_ids=None, position_ids=None, attention_mask=None, position=0):
    pred = predict(inputs, token_type_ids=token_type_ids, position_ids=position_ids, attention_mask=attention_mask)
    return pred[position].max(1).values


input_ids = torch.tensor([[cls_token_id, *question_ids, sep_token_id, *text_ids, sep_token_id]])
ref_input_ids = torch.where((input_ids == cls_token_id) | (input_ids == sep_token_id), input_ids, ref_token_id)
token_type_ids = torch.tensor([[0 if k <= len(question_ids) + 1 else 1 for k in range(input_ids.size(1))]])
ref_token_type_ids = torch.zeros_like(token_type_ids)
position_ids = torch.arange(input_ids.size(1)).unsqueeze(0)
ref_position_ids = torch.zeros_like(position_ids)
attention_mask = torch.ones_like(input_ids)
all_tokens = [f"[{number}]" for number in input_ids[0].tolist()]


def summarize_attributions(attributions):
    attributions = attributions.sum(dim=-1).squeeze(0)
    return attributions / torch.norm(attributions)


result = {}
lig = LayerIntegratedGradients(squad_pos_forward_func, model.bert.embeddings)
for position, name in enumerate(("start", "end")):
    attributions, delta = lig.attribute(
        inputs=input_ids,
        baselines=ref_input_ids,
        additional_forward_args=(token_type_ids, position_ids, attention_mask, position),
        return_convergence_delta=True,
        n_steps=20,
    )
    summed = summarize_attributions(attributions)
    scores = predict(input_ids, token_type_ids, position_ids, attention_mask)[position]
    vis = viz.VisualizationDataRecord(
        summed,
        torch.max(torch.softmax(scores[0], dim=0)),
        torch.argmax(scores),
        torch.argmax(scores),
        str(13),
        summed.sum(),
        all_tokens,
        delta,
    )
    shown = viz.visualize_text([vis])
    result[name] = summed

lig2 = LayerIntegratedGradients(
    squad_pos_forward_func,
    [
        model.bert.embeddings.word_embeddings,
        model.bert.embeddings.token_type_embeddings,
        model.bert.embeddings.position_embeddings,
    ],
)
several = lig2.attribute(
    inputs=(input_ids, token_type_ids, position_ids),
    baselines=(ref_input_ids, ref_token_type_ids, ref_position_ids),
    additional_forward_args=(attention_mask, 0),
    n_steps=20,
)
for name, part in zip(("word", "type", "position"), several, strict=True):
    result[name] = summarize_attributions(part)


def squad_pos_forward_func2(input_emb, attention_mask=None, position=0):
    output = model(inputs_embeds=input_emb, attention_mask=attention_mask)
    return (output.start_logits, output.end_logits)[position].max(1).values


input_embeddings = model.bert.embeddings.word_embeddings(input_ids).detach()
ref_input_embeddings = model.bert.embeddings.word_embeddings(ref_input_ids).detach()
for number in range(config.num_hidden_layers):
    lc = LayerConductance(squad_pos_forward_func2, model.bert.encoder.layer[number])
    attributions = lc.attribute(
        inputs=input_embeddings,
        baselines=ref_input_embeddings,
        additional_forward_args=(attention_mask, 0),
        n_steps=10,
    )
    attributions = attributions[0] if isinstance(attributions, tuple) else attributions
    result[f"layer {number}"] = summarize_attributions(attributions)
