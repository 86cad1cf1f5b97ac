from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas_core.distillation import targets as targets_module
from kdnas_core.distillation.targets import FOLDERS_KEPT, Targets, make_batch, teacher_targets
from kdnas_core.distillation.teacher import Teacher
from tests.tiny import teacher_of


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


def computed(teacher: Teacher, texts: list[str], cache: Path, length: int = 24) -> Targets:
    return teacher_targets(teacher, texts, length, None, cache)


def folders(cache: Path) -> set[str]:
    return {path.name for path in (cache / "targets").iterdir()}


def test_each_text_is_as_the_teacher_sees_it_alone(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    some = [texts[0], "Short.", *texts[1:40], "A few words more."]
    targets = computed(teacher, some, tmp_path)
    for row, text in enumerate(some):
        alone = teacher.tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            states = teacher.model(**alone, output_hidden_states=True).hidden_states
        expected = torch.stack(states[1:], dim=2)[0].numpy()  # (n, N, H)
        stored = targets.hidden[targets.offsets[row] : targets.offsets[row + 1]]
        np.testing.assert_allclose(stored, expected, rtol=2e-3, atol=2e-3)


def test_only_real_tokens_are_stored_cut_at_the_length(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    some = ["Short.", *texts[:35]]
    targets = computed(teacher, some, tmp_path)
    alone = [teacher.tokenizer(text, truncation=True, max_length=24)["input_ids"] for text in some]
    assert targets.lengths.tolist() == [len(ids) for ids in alone]
    assert min(targets.lengths) < max(targets.lengths) == 24
    assert targets.ids.tolist() == [token for ids in alone for token in ids]
    assert targets.hidden.shape == (len(targets.ids), 4, 32)
    assert len(targets) == 36


def test_outputs_are_memory_mapped_half_precision_that_nobody_can_change(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    targets = computed(teacher, texts[:3], tmp_path)
    assert isinstance(targets.hidden, np.memmap)
    assert targets.hidden.dtype == np.float16
    assert not targets.hidden.flags.writeable


def test_the_variance_is_that_of_each_layer_about_its_mean_token(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    targets = computed(teacher, texts[:70], tmp_path)
    expected = targets.hidden.astype(np.float64).var(axis=0).mean(axis=1)
    np.testing.assert_allclose(targets.variance, expected, rtol=1e-3)


def test_the_second_time_the_teacher_is_not_asked(
    teacher: Teacher, texts: list[str], tmp_path: Path, passes: list[int]
) -> None:
    first = computed(teacher, texts[:40], tmp_path)
    asked = len(passes)
    assert sum(passes) == 40
    second = computed(teacher, texts[:40], tmp_path)
    assert len(passes) == asked
    for name in ("ids", "offsets", "hidden", "variance"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_other_texts_lengths_precisions_and_teachers_are_asked_anew(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets_module, "FOLDERS_KEPT", 9)
    teacher_targets(teacher, texts[:2], 24, None, tmp_path)
    teacher_targets(teacher, texts[1::-1], 24, None, tmp_path)
    teacher_targets(teacher, texts[:2], 25, None, tmp_path)
    teacher_targets(teacher, texts[:2], 24, torch.bfloat16, tmp_path)
    teacher_targets(dataclasses.replace(teacher, fingerprint="other"), texts[:2], 24, None, tmp_path)
    assert len(folders(tmp_path)) == 5


def test_progress_rises_to_the_whole(teacher: Teacher, texts: list[str], tmp_path: Path) -> None:
    shares: list[float] = []
    teacher_targets(teacher, texts[:70], 24, None, tmp_path, shares.append)
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1


def test_a_crash_midway_leaves_no_folder_and_the_next_run_starts_anew(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    def crash(share: float) -> None:
        assert 0 < share < 1
        raise Interrupted

    with pytest.raises(Interrupted):
        teacher_targets(teacher, texts[:70], 24, None, tmp_path, crash)
    assert folders(tmp_path) == set()
    assert len(computed(teacher, texts[:70], tmp_path)) == 70


def test_two_that_compute_the_same_at_once_both_get_it(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    others: list[Targets] = []

    def meanwhile(share: float) -> None:
        if not others:
            others.append(computed(teacher, texts[:3], tmp_path))

    mine = teacher_targets(teacher, texts[:3], 24, None, tmp_path, meanwhile)
    assert np.array_equal(mine.hidden, others[0].hidden)
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
    left = tmp_path / "targets" / ".unfinished-killed"
    left.mkdir(parents=True)
    week_ago = time.time() - 7 * 86_400
    os.utime(left, (week_ago, week_ago))
    computed(teacher, texts[:1], tmp_path)
    assert not left.exists()


def test_the_cache_stays_usable_where_a_folder_went_missing(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    first = computed(teacher, texts[:3], tmp_path)
    shutil.rmtree(tmp_path / "targets")
    assert np.array_equal(computed(teacher, texts[:3], tmp_path).hidden, first.hidden)


def test_a_batch_is_the_texts_asked_for_padded_at_the_end(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    targets = computed(teacher, ["Short.", *texts[:5]], tmp_path)
    batch = make_batch(targets, [3, 0], pad=9)
    short, long = int(targets.lengths[0]), int(targets.lengths[3])
    assert short < long
    assert batch.ids[0].tolist() == targets.ids[targets.offsets[3] : targets.offsets[4]].tolist()
    assert batch.ids[1].tolist() == [*targets.ids[:short].tolist(), *[9] * (long - short)]
    assert batch.mask.tolist() == [[1] * long, [1] * short + [0] * (long - short)]
    expected = np.concatenate(
        [targets.hidden[targets.offsets[3] : targets.offsets[4]], targets.hidden[:short]]
    )
    assert batch.hidden.dtype == torch.float32
    assert np.array_equal(batch.hidden.numpy(), expected.astype(np.float32))
