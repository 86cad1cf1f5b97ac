from __future__ import annotations

import pytest

from kdnas_core.models.families import canonical, own_names
from tests.tiny_families import CONFIGS, model_of


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_family_has_the_names_of_bert_and_gets_its_own_back(kind: str) -> None:
    model = model_of(kind, 50)
    own, family = model.state_dict(), model.config.model_type
    by_bert = canonical(own, family)
    known = {*model_of("bert", 50).state_dict(), "embeddings_project.weight", "embeddings_project.bias"}
    assert len(by_bert) == len(own)
    assert set(by_bert) <= known
    assert {name for name in known if "layer.3." in name} <= set(by_bert)
    back = own_names(by_bert, family)
    assert back.keys() == own.keys()
    assert all(back[name] is own[name] for name in own)


def test_a_weight_of_a_distilbert_has_the_name_of_what_it_does() -> None:
    own = model_of("distilbert", 50).state_dict()
    named = canonical(own, "distilbert")
    pairs = {
        "attention.q_lin.weight": "attention.self.query.weight",
        "attention.out_lin.bias": "attention.output.dense.bias",
        "sa_layer_norm.weight": "attention.output.LayerNorm.weight",
        "ffn.lin1.weight": "intermediate.dense.weight",
        "ffn.lin2.bias": "output.dense.bias",
        "output_layer_norm.bias": "output.LayerNorm.bias",
    }
    for theirs, berts in pairs.items():
        assert named[f"encoder.layer.2.{berts}"] is own[f"transformer.layer.2.{theirs}"]
