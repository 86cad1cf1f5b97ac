"""Teachers that are small enough to be trained within a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, BertConfig, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN, with_pairs
from kdnas_core.distillation.loop import Group, Loop
from kdnas_core.models.targets import padded, tokenised
from kdnas_core.models.teacher import Teacher, fingerprint

MASKED_LM = Architecture(4, 128, 512, 4)
BATCH = 32
RATE = 1e-3
SAID = 200  # every so many steps


def new_bert(shape: Architecture, vocabulary: int) -> PreTrainedModel:
    """A BERT of this shape with random weights and no dropout."""
    return AutoModel.from_config(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.attention_heads,
            intermediate_size=shape.intermediate_size,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def learn(modules: Sequence[nn.Module], loss: Callable[[], torch.Tensor], steps: int, rate: float) -> None:
    """Trains modules by the product's loop, and says how far it is.

    Args:
        modules: all that is trained.
        loss: of the next batch.
        steps: to take.
        rate: of learning, at its highest.
    """
    loop = Loop([Group(list(module.parameters())) for module in modules], steps, rate)
    losses: list[float] = []

    def gradients() -> float:
        found = loss()
        found.backward()
        losses.append(found.item())
        return losses[-1]

    for step in range(1, steps + 1):
        loop.take(step, gradients)
        if step % SAID == 0:
            print(f"step {step} of {steps}: loss {losses[-1]:.3f}", flush=True)


def masked_lm(packaged: Teacher, texts: Sequence[str], steps: int, seed: int, tokens: int = 64) -> Teacher:
    """A small BERT that has learnt to guess hidden words, as far as some minutes go.

    Args:
        packaged: whose tokenizer it reads with.
        texts: to learn from.
        steps: of 32 texts.
        seed: of its weights and of the order of the texts.
        tokens: of a text at most.
    """
    torch.manual_seed(seed)
    model = new_bert(MASKED_LM, len(packaged.tokenizer))
    words, width = model.get_input_embeddings().weight, MASKED_LM.hidden_size
    assert isinstance(words, torch.Tensor)
    head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
    encoded = tokenised(packaged, with_pairs(texts, 0.5, seed), tokens, hidden_words=True)
    types_of = encoded.types
    assert types_of is not None
    rng = np.random.default_rng(seed)

    def loss() -> torch.Tensor:
        slices = [encoded.slice(int(text)) for text in rng.choice(len(texts), BATCH, replace=False)]
        ids, mask = padded([encoded.ids[part] for part in slices], packaged.tokenizer.pad_token_id)
        types, _ = padded([types_of[part] for part in slices], 0)
        wanted, _ = padded([encoded.labels[part] for part in slices], NOT_HIDDEN)
        states = model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        hidden = wanted != NOT_HIDDEN
        return F.cross_entropy(head(states[hidden]) @ words.T, wanted[hidden])

    learn([model, head], loss, steps, RATE)
    model.eval().requires_grad_(False)
    return Teacher("masked_lm", model, packaged.tokenizer, MASKED_LM, fingerprint(model))
