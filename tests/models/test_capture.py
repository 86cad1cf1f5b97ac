from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    GPT2Config,
    GPT2Model,
    MobileBertConfig,
    MobileBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from kdnas_core.errors import BadInput
from kdnas_core.models.capture import Captured, capture, dot_scores
from tests.sentences import is_one_sentence

LAYERS, HEADS, WIDTH, VOCABULARY, PADDING = 3, 4, 32, 50, 1
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "pad_token_id": PADDING,
    "initializer_range": 0.5,  # wide enough that attention is far from even
}
DISTILBERT_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_layers": LAYERS,
    "dim": WIDTH,
    "n_heads": HEADS,
    "hidden_dim": 40,
    "max_position_embeddings": 40,
    "pad_token_id": PADDING,
    "initializer_range": 0.5,
}
MOBILEBERT = MobileBertConfig(**SHAPE, embedding_size=16, intra_bottleneck_size=16)
MOBILEBERT_TINY = MobileBertConfig(
    **SHAPE,
    embedding_size=16,
    intra_bottleneck_size=16,
    use_bottleneck_attention=True,
    key_query_shared_bottleneck=False,
    num_feedforward_networks=2,
)
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**SHAPE)),
    "bert with a head": lambda: BertForMaskedLM(BertConfig(**SHAPE)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SHAPE)),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SHAPE)),
    "camembert": lambda: CamembertModel(CamembertConfig(**SHAPE)),
    "electra": lambda: ElectraModel(ElectraConfig(**SHAPE, embedding_size=16)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**DISTILBERT_SHAPE)),
    "mobilebert": lambda: MobileBertModel(MOBILEBERT),
    "mobilebert-tiny": lambda: MobileBertModel(MOBILEBERT_TINY),
}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return made(request.param)


def attention_scores(captured: Captured, heads: int) -> list[torch.Tensor]:
    """Pre-softmax scores of each layer, before any mask: M tensors (B, heads, n, n)."""
    pairs = zip(captured.queries, captured.keys, strict=True)
    return [dot_scores(queries, keys, heads) for queries, keys in pairs]


def made(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = FAMILIES[family]()
    model.eval()
    model.set_attn_implementation("sdpa")
    return model


def batch(seed: int, lengths: tuple[int, ...] = (9, 4, 1)) -> dict[str, torch.Tensor]:
    """Random words, padded on the right."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PADDING)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(2, VOCABULARY, (length,), generator=random)
    return {"input_ids": ids, "attention_mask": (ids != PADDING).long()}


def hooks_of(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def copied(captured: Captured) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in (*captured.queries, *captured.keys, *captured.values)]


def all_equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def test_softmax_of_the_captured_scores_is_the_attention_of_the_model_itself(model: PreTrainedModel) -> None:
    inputs = batch(0)
    with torch.no_grad(), capture(model) as captured:
        assert model.config._attn_implementation == "sdpa"
        model(**inputs)
        scores = attention_scores(captured, HEADS)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions

    assert len(scores) == len(attentions) == LAYERS
    for score, attention in zip(scores, attentions, strict=True):
        assert attention.max() > 0.5  # far from even, so that a wrong scale would show
        for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
            own = score[row, :, :, :length].softmax(-1)
            torch.testing.assert_close(own, attention[row, :, :, :length], atol=1e-5, rtol=0)


def test_values_weighted_by_the_attention_are_what_the_next_module_reads(model: PreTrainedModel) -> None:
    inputs = batch(0)
    read: list[torch.Tensor] = []
    base = model.base_model
    if isinstance(base, DistilBertModel):
        outputs = [base.get_submodule(f"transformer.layer.{i}.attention.out_lin") for i in range(LAYERS)]
    else:
        outputs = [base.get_submodule(f"encoder.layer.{i}.attention.output.dense") for i in range(LAYERS)]
    for output in outputs:
        output.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    with torch.no_grad(), capture(model) as captured:
        model(**inputs)
        scores = attention_scores(captured, HEADS)

    for score, values, expected in zip(scores, captured.values, read, strict=True):
        for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
            split = values[row, :length].unflatten(-1, (HEADS, -1)).transpose(0, 1)  # (heads, n, d)
            mixed = (score[row, :, :, :length].softmax(-1) @ split).transpose(0, 1).flatten(1)
            torch.testing.assert_close(mixed, expected[row], atol=1e-4, rtol=1e-4)


def test_there_is_one_tensor_a_layer_as_wide_as_attention_is(model: PreTrainedModel) -> None:
    width = getattr(model.config, "true_hidden_size", WIDTH)
    with torch.no_grad(), capture(model) as captured:
        model(**batch(0))
    for kept in (captured.queries, captured.keys, captured.values):
        assert [tensor.shape for tensor in kept] == [(3, 9, width)] * LAYERS


def test_the_heads_of_mobilebert_are_those_of_its_bottleneck() -> None:
    model = made("mobilebert")
    with torch.no_grad(), capture(model) as captured:
        model(**batch(0))
    queries, keys = (kept[0][0].unflatten(-1, (HEADS, 4)) for kept in (captured.queries, captured.keys))
    expected = torch.dot(queries[2, 1], keys[5, 1]) / math.sqrt(4)
    assert attention_scores(captured, HEADS)[0][0, 1, 2, 5].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_hooks_are_gone_after_the_block_and_the_model_is_as_before(model: PreTrainedModel) -> None:
    before, weights = hooks_of(model), {name: id(weight) for name, weight in model.named_parameters()}
    with torch.no_grad():
        alone = model(**batch(0))[0]
        with capture(model) as captured:
            assert hooks_of(model) == before + 3 * LAYERS + 1
            watched = model(**batch(0))[0]
        kept = copied(captured)
        model(**batch(1))
    assert hooks_of(model) == before
    assert torch.equal(alone, watched)
    assert all_equal(copied(captured), kept)
    assert {name: id(weight) for name, weight in model.named_parameters()} == weights


def test_the_hooks_are_gone_also_when_the_body_raises() -> None:
    model = made("bert")
    before = hooks_of(model)
    with pytest.raises(ZeroDivisionError), capture(model):
        raise ZeroDivisionError
    assert hooks_of(model) == before


def test_two_passes_do_not_mix(model: PreTrainedModel) -> None:
    with torch.no_grad():
        with capture(model) as captured:
            model(**batch(1, (5, 5)))
        alone = copied(captured)
        with capture(model) as captured:
            assert copied(captured) == []
            model(**batch(0))
            model(**batch(1, (5, 5)))
        assert all_equal(copied(captured), alone)


def test_a_pass_that_failed_halfway_leaves_nothing_to_the_next() -> None:
    model = made("bert")
    handle = model.get_submodule("encoder.layer.1.output").register_forward_pre_hook(lambda *_: 1 / 0)
    with torch.no_grad(), capture(model) as captured:
        with pytest.raises(ZeroDivisionError):
            model(**batch(0))
        handle.remove()
        model(**batch(0))
        assert len(captured.queries) == len(captured.values) == LAYERS


def test_a_teacher_and_a_student_are_captured_side_by_side() -> None:
    teacher, student = made("roberta"), made("distilbert")
    with torch.no_grad(), capture(teacher) as theirs, capture(student) as own:
        teacher(**batch(0))
        assert own.queries == []
        student(**batch(0))
        assert len(theirs.queries) == len(own.queries) == LAYERS
        assert not torch.equal(theirs.queries[0], own.queries[0])


@pytest.mark.parametrize("part", ["queries", "keys", "values"])
def test_gradients_flow_through_what_is_captured(model: PreTrainedModel, part: str) -> None:
    with capture(model) as captured:
        model(**batch(0))
        getattr(captured, part)[1].square().mean().backward()
    reached = {
        name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()
    }
    assert any("word_embeddings" in name for name in reached)
    assert any("layer.0." in name for name in reached)
    assert not any("layer.2." in name for name in reached)


def test_inference_mode_is_captured_too_without_gradients(model: PreTrainedModel) -> None:
    with torch.inference_mode(), capture(model) as captured:
        model(**batch(0))
        scores = attention_scores(captured, HEADS)
    assert len(scores) == LAYERS
    assert all(score.isfinite().all() and not score.requires_grad for score in scores)


def test_another_family_is_refused_in_one_sentence_that_names_those_that_do() -> None:
    model = GPT2Model(GPT2Config(vocab_size=10, n_layer=1, n_head=1, n_embd=8))
    with pytest.raises(BadInput) as caught, capture(model):
        pass
    message = str(caught.value)
    assert is_one_sentence(message)
    assert "'gpt2'" in message
    for family in ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mobilebert"):
        assert family in message
    assert hooks_of(model) == 0
