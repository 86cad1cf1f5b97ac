from __future__ import annotations

import copy
import dataclasses
import os
import re
import shutil
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.errors import BadInput
from kdnas_core.models import teacher_outputs as module
from kdnas_core.models.targets import Kind, Targets
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.teacher_outputs import FOLDERS_KEPT, NeededOutputs, teacher_targets
from tests.sentences import is_one_sentence
from tests.tiny import HIDDEN_STATES, everything_of, teacher_of

LENGTH = 24
HIDDEN = {("hidden", layer) for layer in range(5)}
PARTS: tuple[Kind, ...] = ("query", "key", "value")
Usage = namedtuple("Usage", "total used free")


class Interrupted(Exception):
    pass


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def passes(teacher: Teacher) -> Iterator[list[int]]:
    """The size of each batch that the teacher is given."""
    sizes: list[int] = []
    hook = teacher.model.register_forward_hook(
        lambda _, __, output: sizes.append(len(output.last_hidden_state))
    )
    yield sizes
    hook.remove()


@pytest.fixture
def without_mask(teacher: Teacher, tiny_teacher: Path) -> Teacher:
    tokenizer = type(teacher.tokenizer).from_pretrained(tiny_teacher)
    tokenizer.mask_token = None
    return dataclasses.replace(teacher, tokenizer=tokenizer)


def computed(
    teacher: Teacher, texts: list[str], cache: Path, wanted: NeededOutputs = HIDDEN_STATES
) -> Targets:
    return teacher_targets(teacher, texts, LENGTH, None, cache, wanted=wanted)


def folders(cache: Path) -> set[str]:
    return {path.name for path in (cache / "targets").glob("*")}


def equal(one: Targets, other: Targets) -> bool:
    names = ("ids", "labels", "offsets", "variance")
    return one.outputs.keys() == other.outputs.keys() and all(
        np.array_equal(mine, theirs)
        for mine, theirs in (
            *((getattr(one, name), getattr(other, name)) for name in names),
            *((one.outputs[output], other.outputs[output]) for output in one.outputs),
        )
    )


def alone(teacher: Teacher, text: str) -> list[torch.Tensor]:
    """The hidden states (n, H) of layers 0..N for one text without padding."""
    inputs = teacher.tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        return [state[0] for state in teacher.model(**inputs, output_hidden_states=True).hidden_states]


def test_each_text_is_as_the_teacher_sees_it_alone(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    some = [texts[0], "Short.", *texts[1:40], "A few words more."]
    targets = computed(teacher, some, tmp_path)
    assert targets.outputs.keys() == HIDDEN
    for row, text in enumerate(some):
        part = slice(targets.offsets[row], targets.offsets[row + 1])
        for layer, expected in enumerate(alone(teacher, text)):
            stored = targets.outputs["hidden", layer][part]
            np.testing.assert_allclose(stored, expected.numpy(), rtol=2e-3, atol=2e-3)


def test_queries_keys_and_values_are_the_teachers_own_projections_of_the_layer_below(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    some = [texts[0], "Short.", texts[3]]
    wanted = NeededOutputs([("query", 1), ("key", 4), ("value", 3)])
    targets = computed(teacher, some, tmp_path, wanted)
    assert targets.outputs.keys() == HIDDEN | {("query", 1), ("key", 4), ("value", 3)}
    for row, text in enumerate(some):
        part = slice(targets.offsets[row], targets.offsets[row + 1])
        states = alone(teacher, text)
        for kind, layer in wanted.projections:
            path = f"encoder.layer.{layer - 1}.attention.self.{kind}"
            linear = teacher.model.get_submodule(path)
            expected = linear(states[layer - 1]).numpy()
            np.testing.assert_allclose(targets.outputs[kind, layer][part], expected, rtol=2e-3, atol=4e-3)


def test_only_real_tokens_are_stored_cut_at_the_length(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    some = ["Short.", *texts[:35]]
    targets = computed(teacher, some, tmp_path, NeededOutputs([("value", 2)]))
    ids = [teacher.tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"] for text in some]
    assert targets.lengths.tolist() == [len(of_text) for of_text in ids]
    assert min(targets.lengths) < max(targets.lengths) == LENGTH
    assert targets.ids.tolist() == [token for of_text in ids for token in of_text]
    assert {states.shape for states in targets.outputs.values()} == {(len(targets.ids), 32)}
    assert len(targets) == 36


def test_outputs_are_memory_mapped_half_precision_that_nobody_can_change(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    for states in computed(teacher, texts[:3], tmp_path, everything_of(teacher)).outputs.values():
        assert isinstance(states.base, np.memmap)
        assert states.dtype == np.float16
        assert not states.flags.writeable


def test_the_variance_is_that_of_each_layer_about_its_mean_token_the_embedding_first(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    targets = computed(teacher, texts[:70], tmp_path)
    expected = [targets.outputs["hidden", layer].astype(np.float64).var(axis=0).mean() for layer in range(5)]
    np.testing.assert_allclose(targets.variance, expected, rtol=1e-3)


def test_no_word_is_hidden_unless_it_is_wanted(teacher: Teacher, texts: list[str], tmp_path: Path) -> None:
    targets = computed(teacher, texts[:10], tmp_path)
    assert (targets.labels == NOT_HIDDEN).all()
    assert teacher.tokenizer.mask_token_id not in targets.ids


def test_the_teacher_reads_the_texts_with_their_words_hidden(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    plain = computed(teacher, texts[:10], tmp_path)
    targets = computed(teacher, texts[:10], tmp_path, NeededOutputs(hidden_words=True))
    hidden = targets.labels != NOT_HIDDEN
    assert np.array_equal(np.where(hidden, targets.labels, targets.ids), plain.ids)
    assert (targets.ids[hidden] == teacher.tokenizer.mask_token_id).any()
    for row in range(10):
        part = slice(targets.offsets[row], targets.offsets[row + 1])
        with torch.no_grad():
            ids = torch.from_numpy(targets.ids[part])[None]
            expected = teacher.model(input_ids=ids).last_hidden_state[0].numpy()
        np.testing.assert_allclose(targets.outputs["hidden", 4][part], expected, rtol=2e-3, atol=2e-3)


def test_a_tokenizer_without_a_mask_token_is_refused_and_nothing_is_left(
    teacher: Teacher, texts: list[str], tmp_path: Path, without_mask: Teacher
) -> None:
    with pytest.raises(BadInput, match="no mask token") as caught:
        computed(without_mask, texts[:3], tmp_path, NeededOutputs(hidden_words=True))
    assert is_one_sentence(str(caught.value))
    assert folders(tmp_path) == set()
    computed(without_mask, texts[:3], tmp_path)


def test_the_second_time_the_teacher_is_not_asked(
    teacher: Teacher, texts: list[str], tmp_path: Path, passes: list[int]
) -> None:
    wanted = everything_of(teacher)
    first = computed(teacher, texts[:40], tmp_path, wanted)
    asked = len(passes)
    assert sum(passes) == 40
    second = computed(teacher, texts[:40], tmp_path, wanted)
    assert len(passes) == asked
    assert equal(first, second)


def test_the_same_outputs_in_another_order_are_the_same(
    teacher: Teacher, texts: list[str], tmp_path: Path, passes: list[int]
) -> None:
    first = computed(teacher, texts[:3], tmp_path, NeededOutputs([("query", 1), ("key", 2)]))
    second = computed(teacher, texts[:3], tmp_path, NeededOutputs([("key", 2), ("query", 1)]))
    assert len(passes) == 1
    assert equal(first, second)


def test_other_texts_lengths_precisions_teachers_and_wants_are_asked_anew(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDERS_KEPT", 9)
    teacher_targets(teacher, texts[:2], 24, None, tmp_path)
    teacher_targets(teacher, texts[1::-1], 24, None, tmp_path)
    teacher_targets(teacher, texts[:2], 25, None, tmp_path)
    teacher_targets(teacher, texts[:2], 24, torch.bfloat16, tmp_path)
    teacher_targets(dataclasses.replace(teacher, fingerprint="other"), texts[:2], 24, None, tmp_path)
    computed(teacher, texts[:2], tmp_path, NeededOutputs(hidden_words=True))
    computed(teacher, texts[:2], tmp_path, NeededOutputs([("query", 1)]))
    computed(teacher, texts[:2], tmp_path, NeededOutputs([("query", 2)]))
    assert len(folders(tmp_path)) == 8


def test_a_mended_tokenizer_is_noticed(teacher: Teacher, texts: list[str], tmp_path: Path) -> None:
    first = teacher_targets(teacher, texts[:2], 24, None, tmp_path)
    again = copy.deepcopy(teacher.tokenizer)
    again.add_tokens([texts[0].split()[0]])
    mended = dataclasses.replace(teacher, tokenizer=again)
    with pytest.raises(IndexError):  # a word that the teacher has no embedding of: it was asked
        teacher_targets(mended, texts[:2], 24, None, tmp_path)
    assert equal(teacher_targets(teacher, texts[:2], 24, None, tmp_path), first)


def test_progress_rises_to_the_whole(teacher: Teacher, texts: list[str], tmp_path: Path) -> None:
    shares: list[float] = []
    teacher_targets(teacher, texts[:70], LENGTH, None, tmp_path, shares.append)
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1


def test_a_crash_midway_leaves_no_folder_and_the_next_run_starts_anew(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    def crash(share: float) -> None:
        assert 0 < share < 1
        raise Interrupted

    with pytest.raises(Interrupted):
        teacher_targets(teacher, texts[:70], LENGTH, None, tmp_path, crash)
    assert folders(tmp_path) == set()
    assert len(computed(teacher, texts[:70], tmp_path)) == 70


def test_two_that_compute_the_same_at_once_both_get_it(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    others: list[Targets] = []

    def meanwhile(share: float) -> None:
        if not others:
            others.append(computed(teacher, texts[:3], tmp_path))

    mine = teacher_targets(teacher, texts[:3], LENGTH, None, tmp_path, meanwhile)
    assert equal(mine, others[0])
    assert len(folders(tmp_path)) == 1


def test_beyond_the_bound_the_longest_unused_folders_are_deleted(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    names: list[str] = []
    for age in range(FOLDERS_KEPT):
        before = folders(tmp_path) if names else set()
        computed(teacher, texts[age : age + 1], tmp_path)
        (new,) = folders(tmp_path) - before
        names.append(new)
        os.utime(tmp_path / "targets" / new, (1_000 + age, 1_000 + age))
    computed(teacher, texts[:1], tmp_path)  # used again: the second oldest goes first
    computed(teacher, texts[50:51], tmp_path)
    kept = folders(tmp_path)
    assert len(kept) == FOLDERS_KEPT
    assert names[0] in kept
    assert set(names[2:]) < kept


def test_what_a_killed_run_left_unfinished_is_deleted_in_time(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    left, fresh = (tmp_path / "targets" / name for name in (".unfinished-killed", ".unfinished-busy"))
    for folder in (left, fresh):
        folder.mkdir(parents=True)
    week_ago = time.time() - 7 * 86_400
    os.utime(left, (week_ago, week_ago))
    computed(teacher, texts[:1], tmp_path)
    assert not left.exists()
    assert fresh.exists()  # another process may be at work on it


def test_the_cache_stays_usable_where_a_folder_went_missing(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    first = computed(teacher, texts[:3], tmp_path)
    shutil.rmtree(tmp_path / "targets")
    assert equal(computed(teacher, texts[:3], tmp_path), first)


def test_a_disk_without_room_is_said_in_one_sentence_with_both_sizes(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = computed(teacher, texts[:3], tmp_path / "elsewhere", NeededOutputs([("query", 1)]))
    needed = 6 * 32 * 2 * len(targets.ids)  # five hidden states and a query

    def free(amount: int) -> Any:
        return lambda folder: Usage(10**12, 10**12 - amount, amount)

    monkeypatch.setattr(shutil, "disk_usage", free(needed + module.SPARE_BYTES - 1))
    with pytest.raises(BadInput) as caught:
        computed(teacher, texts[:3], tmp_path, NeededOutputs([("query", 1)]))
    assert is_one_sentence(str(caught.value)), caught.value
    assert re.search(r"take 0\.0 GB, but the cache has 0\.5 GB free", str(caught.value))
    assert "proxy.sentences" in str(caught.value)
    assert folders(tmp_path) == set()
    monkeypatch.setattr(shutil, "disk_usage", free(needed + module.SPARE_BYTES))
    computed(teacher, texts[:3], tmp_path, NeededOutputs([("query", 1)]))
