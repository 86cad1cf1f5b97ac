from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertForMaskedLM,
    BertModel,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraModel,
    PreTrainedConfig,
)

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.models import sources
from kdnas_core.models import teacher as teacher_module
from kdnas_core.models.families import shape_of
from kdnas_core.models.sources import teacher_folder
from kdnas_core.models.teacher import Teacher, load_teacher
from tests.sentences import is_one_sentence
from tests.tiny_families import CONFIGS, SHAPE, model_of


@pytest.fixture
def folder(tiny_teacher: Path, tmp_path: Path) -> Path:
    """A copy of the tiny teacher, to be damaged."""
    return shutil.copytree(tiny_teacher, tmp_path / "teacher")


@pytest.fixture(scope="module")
def packaged() -> Teacher:
    return load_teacher("packaged")


def refusal(source: Path | str) -> str:
    started = time.monotonic()
    with pytest.raises(BadInput) as caught:
        load_teacher(str(source))
    assert time.monotonic() - started < 15
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def test_the_packaged_teacher_is_loaded_as_what_it_is(packaged: Teacher) -> None:
    assert packaged.architecture == Architecture(6, 384, 1536, 12, "gelu")
    assert packaged.layers == 6
    assert sum(weight.numel() for weight in packaged.model.parameters()) == pytest.approx(22.7e6, rel=0.01)
    inputs = packaged.tokenizer("A student learns from its teacher.", return_tensors="pt")
    with torch.inference_mode():
        states = packaged.model(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 7
    assert states[-1].shape == (1, inputs["input_ids"].shape[1], 384)


def test_the_packaged_teacher_knows_what_sentences_mean(packaged: Teacher) -> None:
    sentences = ["A dog runs in the park.", "A puppy plays on the grass.", "Interest rates rose in March."]
    inputs = packaged.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = packaged.model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    similar, unlike = (means[0] @ means[1]).item(), (means[0] @ means[2]).item()
    assert similar > unlike + 0.3


@pytest.mark.parametrize("source", ["packaged", "tiny"])
def test_a_teacher_is_frozen_in_eval_mode_and_float32(
    source: str, packaged: Teacher, tiny_teacher: Path
) -> None:
    teacher = packaged if source == "packaged" else load_teacher(str(tiny_teacher))
    assert not any(module.training for module in teacher.model.modules())
    assert not any(weight.requires_grad for weight in teacher.model.parameters())
    assert {weight.dtype for weight in teacher.model.parameters()} == {torch.float32}


def test_one_flipped_byte_of_the_packaged_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = teacher_folder("packaged")
    assert original is not None
    copy = shutil.copytree(original, tmp_path / "model")
    monkeypatch.setattr(sources, "_packaged_folder", lambda: copy)
    load_teacher("packaged")  # the copy is as good as the original
    weights = copy / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(-1_000, 2)
        byte = file.read(1)
        file.seek(-1_000, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert "damaged" in refusal("packaged")


def test_a_teacher_saved_in_half_precision_is_loaded_in_float32(folder: Path) -> None:
    BertModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    teacher = load_teacher(str(folder))
    assert {weight.dtype for weight in teacher.model.parameters()} == {torch.float32}


def test_the_fingerprint_is_the_same_for_the_same_weights_and_changes_with_one(
    tiny_teacher: Path, folder: Path
) -> None:
    first = load_teacher(str(tiny_teacher)).fingerprint
    assert load_teacher(str(folder)).fingerprint == first
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.get_parameter("encoder.layer.2.output.dense.weight")[0, 0] += 1e-3
    model.save_pretrained(folder)
    assert load_teacher(str(folder)).fingerprint != first


def test_a_teacher_saved_without_a_pooler_has_one_fingerprint(folder: Path) -> None:
    # as most masked-language models of the hub; else its outputs would be computed again in every run
    model = BertForMaskedLM(BertModel.from_pretrained(folder).config)
    model.save_pretrained(folder)
    assert load_teacher(str(folder)).fingerprint == load_teacher(str(folder)).fingerprint


def test_loading_a_teacher_leaves_the_random_numbers_of_others_alone(tiny_teacher: Path) -> None:
    before = torch.get_rng_state()
    load_teacher(str(tiny_teacher))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("damage", ["cut short", "garbage", "empty", "of other shapes"])
def test_damaged_weights_of_a_folder_are_refused(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "of other shapes":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    else:
        weights.write_bytes({"cut short": whole[:-500], "garbage": b"\x80" * 900, "empty": b""}[damage])
    assert str(folder) in refusal(folder)


def test_weights_that_lack_a_layer_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.3." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert str(folder) in refusal(folder)  # a layer of random numbers is no teacher


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    assert "tokenizer" in refusal(folder)


def test_a_folder_with_pickled_weights_only_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in refusal(folder)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_teacher_of_every_family_is_loaded_as_it_was_saved(folder: Path, kind: str) -> None:
    (folder / "model.safetensors").unlink()
    saved = model_of(kind, vocabulary=100)
    saved.save_pretrained(folder)
    teacher = load_teacher(str(folder))
    assert type(teacher.model) is type(saved)
    assert teacher.architecture == shape_of(saved.config.to_dict(), kind)
    mine, theirs = teacher.model.state_dict(), saved.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_discriminator_of_an_electra_is_loaded_as_the_encoder_that_it_holds(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    config = ElectraConfig(**SHAPE, vocab_size=100, embedding_size=16)
    discriminator = ElectraForPreTraining(config)
    discriminator.save_pretrained(folder)
    teacher = load_teacher(str(folder))
    assert isinstance(teacher.model, ElectraModel)
    assert teacher.architecture == Architecture(4, 32, 64, 4, "gelu", 16)
    weights = discriminator.electra.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in teacher.model.state_dict().items())


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "mpnet"},
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "roberta", "position_embedding_type": "relative_key"},
    ],
)
def test_a_hub_model_that_is_no_teacher_is_refused_before_its_weights_are_fetched(
    fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_module, "_check_hub", lambda source: None)
    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", lambda source: (fields, {}))
    monkeypatch.setattr(teacher_module, "AutoModel", None)  # would be noticed if it were asked for anything
    assert "somebody/some-model" in refusal("somebody/some-model")


def test_a_folder_of_another_family_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert "'gpt2'" in refusal(folder)


@pytest.mark.parametrize("source", ["/no/such/folder", "name with spaces"])
def test_a_folder_that_is_not_there_is_refused(source: str) -> None:
    assert "There is no folder" in refusal(source)


def test_a_hub_id_without_a_network_is_refused_in_one_sentence_that_names_the_other_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    message = refusal("organisation/model-that-nobody-has")
    assert "network" in message
    assert "`packaged`" in message
    assert "local folder" in message


def test_code_that_comes_with_a_teacher_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    (folder / "custom.py").write_text(f"open({str(marker)!r}, 'w')\nclass Custom: pass\n")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "custom.Custom", "AutoModel": "custom.Custom"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    load_teacher(str(folder))
    assert not marker.exists()
