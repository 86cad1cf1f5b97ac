from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    ElectraForPreTraining,
    PreTrainedModel,
)

from kdnas_core.data.corpus import read_corpus
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation import needs as module
from kdnas_core.distillation.losses import masked_lm
from kdnas_core.distillation.needs import trained_head
from kdnas_core.models.mlm_head import TeacherHead, teacher_head
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, teacher_targets
from kdnas_core.models.vocabulary import Vocabulary
from tests.tiny import proxy_set_of, targets_of, teacher_of
from tests.tiny_families import CONFIGS, SHAPE

WORDS = 600


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def saved(model: PreTrainedModel, tiny_teacher: Path, folder: Path) -> Path:
    """A model with random biases, as a stock user saves it, with the words of the tiny teacher."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                weight.add_(0.3 * torch.randn_like(weight))
    shutil.copytree(tiny_teacher, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    model.save_pretrained(folder)
    return folder


def with_head(kind: str, tiny_teacher: Path, folder: Path, act: str = "gelu") -> Path:
    torch.manual_seed(0)
    config: Any = CONFIGS[kind](vocab_size=WORDS, pad_token_id=0)
    setattr(config, "activation" if kind == "distilbert" else "hidden_act", act)
    return saved(AutoModelForMaskedLM.from_config(config), tiny_teacher, folder)


def own_words(folder: Path) -> TeacherHead:
    words = teacher_head(load_teacher(str(folder)))
    assert words is not None
    return words


@pytest.mark.parametrize(("kind", "act"), [("bert", "gelu"), *((kind, "relu") for kind in CONFIGS)])
def test_the_teachers_logits_are_those_of_the_stock_model_with_its_head(
    kind: str, act: str, tiny_teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    folder = with_head(kind, tiny_teacher, tmp_path / "folder", act)
    teacher = load_teacher(str(folder))
    stock = AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = teacher.tokenizer(texts[:2], padding=True, return_tensors="pt", max_length=60, truncation=True)
    with torch.no_grad():
        expected = stock(**inputs).logits
        states = teacher.model(**inputs).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(own_words(folder).logits(states), expected, atol=1e-5, rtol=1e-5)


def test_a_head_beside_another_head_is_read_too(tiny_teacher: Path, texts: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    stock = BertForPreTraining(BertConfig(**SHAPE, vocab_size=WORDS)).eval()
    folder = saved(stock, tiny_teacher, tmp_path / "folder")
    teacher = load_teacher(str(folder))
    inputs = teacher.tokenizer(texts[:1], return_tensors="pt")
    with torch.no_grad():
        expected = stock(**inputs).prediction_logits
        states = teacher.model(**inputs).last_hidden_state
    torch.testing.assert_close(own_words(folder).logits(states), expected, atol=1e-5, rtol=1e-5)


def test_a_checkpoint_without_a_head_has_none(teacher: Teacher) -> None:
    assert teacher_head(teacher) is None


def test_a_checkpoint_that_names_a_head_which_it_lacks_has_none(
    teacher: Teacher, tiny_teacher: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tiny_teacher, folder)
    config = (folder / "config.json").read_text().replace('"BertModel"', '"BertForMaskedLM"')
    (folder / "config.json").write_text(config)
    assert "BertForMaskedLM" in config
    assert teacher_head(load_teacher(str(folder))) is None


def test_the_discriminator_of_an_electra_predicts_no_words(tiny_teacher: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config: Any = CONFIGS["electra"](vocab_size=WORDS, pad_token_id=0)
    folder = saved(ElectraForPreTraining(config), tiny_teacher, tmp_path / "folder")
    assert teacher_head(load_teacher(str(folder))) is None


def test_the_head_is_frozen_and_gives_no_gradient(tiny_teacher: Path, tmp_path: Path) -> None:
    words = own_words(with_head("bert", tiny_teacher, tmp_path / "folder"))
    states = torch.randn(3, 32, requires_grad=True)
    assert not words.logits(states).requires_grad
    assert not words.table.requires_grad
    assert not any(weight.requires_grad for weight in words.head.parameters())
    assert not words.head.training


def test_of_the_words_in_use_the_logits_are_those_columns(tiny_teacher: Path, tmp_path: Path) -> None:
    words = own_words(with_head("electra, factorised", tiny_teacher, tmp_path / "folder"))
    rows = np.array([0, 3, 5, 77, 599])
    numbers = np.full(WORDS, -1)
    numbers[rows] = np.arange(5)
    states = torch.randn(4, 32)
    whole = words.logits(states)
    torch.testing.assert_close(words.only(Vocabulary(rows, numbers)).logits(states), whole[:, rows])
    assert torch.equal(words.logits(states), whole)
    assert whole.shape == (4, WORDS)


# A head that is trained


@pytest.fixture(scope="module")
def masked(tiny_teacher: Path, texts: list[str]) -> tuple[Targets, Vocabulary]:
    teacher = teacher_of(tiny_teacher)
    wanted = NeededOutputs(hidden_words=True)
    train, held_out = (targets_of(teacher, some, 48, wanted) for some in (texts[:240], texts[240:]))
    data = proxy_set_of(teacher, train, held_out)
    return data.train, data.vocabulary


def loss_of(words: TeacherHead, targets: Targets, layers: int) -> float:
    hidden = targets.labels != NOT_HIDDEN
    states = torch.from_numpy(targets.outputs["hidden", layers][hidden]).float()
    return float(masked_lm(words.logits(states), torch.from_numpy(targets.labels[hidden])))


def unigram_loss(targets: Targets) -> float:
    """Returns the loss of the best prediction without a text: the frequency of each hidden word."""
    hidden = targets.labels[targets.labels != NOT_HIDDEN]
    shares = np.bincount(hidden) / len(hidden)
    return -sum(share * math.log(share) for share in shares if share)


def test_a_trained_head_is_no_worse_than_the_best_guess_that_reads_no_text(
    teacher: Teacher, masked: tuple[Targets, Vocabulary]
) -> None:
    train, vocabulary = masked
    words = trained_head(teacher, train, vocabulary, seed=0)
    # about as good: the weights of the tiny teacher are random, so that its states tell little of a word
    assert loss_of(words, train, layers=4) < unigram_loss(train) + 0.1


@pytest.mark.slow
def test_a_head_trained_for_the_packaged_teacher_reads_more_than_frequencies(fresh_cache: Path) -> None:
    teacher = load_teacher("packaged")
    texts = read_corpus("packaged", fresh_cache, seed=0, limit=1_000)
    wanted = NeededOutputs(hidden_words=True)
    train, held_out = (
        teacher_targets(teacher, some, 48, None, fresh_cache, wanted=wanted)
        for some in (texts[:800], texts[800:])
    )
    data = proxy_set_of(teacher, train, held_out)
    words = trained_head(teacher, data.train, data.vocabulary, seed=0)
    shown = data.train.ids[data.train.labels == NOT_HIDDEN]
    shares = (np.bincount(shown, minlength=len(data.vocabulary.rows)) + 1) / (
        len(shown) + len(data.vocabulary.rows)
    )
    hidden = data.held_out.labels[data.held_out.labels != NOT_HIDDEN]
    assert loss_of(words, data.held_out, layers=6) < -np.log(shares[hidden]).mean() - 0.1


def test_a_trained_head_leaves_the_teacher_as_it_was(
    teacher: Teacher, masked: tuple[Targets, Vocabulary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRAIN_STEPS", 3)
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    words = trained_head(teacher, *masked, seed=0)
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.model.state_dict().items())
    assert all(weight.grad is None for weight in teacher.model.parameters())
    assert torch.equal(words.table, before["embeddings.word_embeddings.weight"][masked[1].rows])
    assert not any(weight.requires_grad for weight in words.head.parameters())


def test_a_head_is_trained_alike_by_the_same_seed_and_not_by_another(
    teacher: Teacher, masked: tuple[Targets, Vocabulary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRAIN_STEPS", 3)
    heads = []
    for seed, noise in ((0, 1), (0, 2), (1, 3)):
        torch.manual_seed(noise)
        heads.append(trained_head(teacher, *masked, seed=seed).head)
    assert torch.equal(heads[0].dense.weight, heads[1].dense.weight)
    assert not torch.equal(heads[0].dense.weight, heads[2].dense.weight)


def test_nothing_of_a_head_is_read_that_could_run_code(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_head("bert", tiny_teacher, tmp_path / "folder")
    asked: list[dict[str, Any]] = []

    def read(where: Any, **options: Any) -> Any:
        asked.append(options)
        return BertForMaskedLM.from_pretrained(where, **options)

    monkeypatch.setattr(AutoModelForMaskedLM, "from_pretrained", read)
    own_words(folder)
    assert asked[0]["use_safetensors"] is True
