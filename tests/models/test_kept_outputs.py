from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdnas_core.models import kept_outputs as module
from kdnas_core.models.kept_outputs import KeptOutputs, kept_outputs
from kdnas_core.models.targets import Output, TokenizedTexts, tokenised
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of

OUTPUTS: list[Output] = [("hidden", 2), ("query", 1)]
OFFSETS = np.array([0, 3, 4, 9])
TEXTS = [slice(0, 3), slice(3, 4), slice(4, 9)]
WIDTH = 8


def kept(folder: Path) -> KeptOutputs:
    return KeptOutputs(folder, OUTPUTS, OFFSETS, WIDTH)


def outputs_of(slices: Sequence[slice]) -> dict[Output, torch.Tensor]:
    tokens = sum(part.stop - part.start for part in slices)
    generator = torch.Generator().manual_seed(0)
    return {output: torch.randn(tokens, WIDTH, generator=generator).half() for output in OUTPUTS}


def test_what_was_written_is_read_in_any_order_and_company(tmp_path: Path) -> None:
    here = kept(tmp_path)
    computed = outputs_of(TEXTS)
    here.write(TEXTS, computed)
    read = here.read([TEXTS[2], TEXTS[0]])
    assert read is not None
    for output in OUTPUTS:
        expected = torch.cat([computed[output][4:9], computed[output][0:3]])
        assert torch.equal(read[output], expected)


def test_a_batch_is_known_once_all_of_its_texts_are(tmp_path: Path) -> None:
    here = kept(tmp_path)
    assert here.read(TEXTS[:1]) is None
    here.write(TEXTS[:1], outputs_of(TEXTS[:1]))
    assert here.read(TEXTS[:1]) is not None
    assert here.read(TEXTS[:2]) is None


def test_another_process_finds_what_this_one_wrote(tmp_path: Path) -> None:
    kept(tmp_path).write(TEXTS[1:2], outputs_of(TEXTS[1:2]))
    read = kept(tmp_path).read(TEXTS[1:2])
    assert read is not None
    assert torch.equal(read["hidden", 2], outputs_of(TEXTS[1:2])["hidden", 2])


def test_a_text_that_was_written_in_part_is_not_believed(tmp_path: Path) -> None:
    here = kept(tmp_path)
    here.write(TEXTS, outputs_of(TEXTS))
    np.memmap(tmp_path / "states.bin", np.float16, "r+", shape=(9, 2, WIDTH))[5, 1, 0] += 1
    assert here.read(TEXTS[2:]) is None
    assert here.read(TEXTS[:2]) is not None


def test_outputs_that_are_all_zero_are_known_too(tmp_path: Path) -> None:
    here = kept(tmp_path)
    here.write(TEXTS[:1], {output: torch.zeros(3, WIDTH) for output in OUTPUTS})
    assert here.read(TEXTS[:1]) is not None


def test_a_file_that_was_cut_short_is_as_long_again_and_what_it_lost_is_unknown(tmp_path: Path) -> None:
    kept(tmp_path).write(TEXTS, outputs_of(TEXTS))
    os.truncate(tmp_path / "states.bin", 4 * 2 * WIDTH * 2)
    here = kept(tmp_path)
    assert here.read(TEXTS[:2]) is not None
    assert here.read(TEXTS[2:]) is None


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def tokens_of(teacher: Teacher, texts: Sequence[str]) -> TokenizedTexts:
    return tokenised(teacher, texts, 16)


def folders(cache: Path) -> set[str]:
    return {path.name for path in (cache / "outputs").iterdir()}


def test_other_texts_precisions_and_outputs_are_kept_apart(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    for some, autocast, outputs in (
        (texts[:3], None, OUTPUTS),
        (texts[:4], None, OUTPUTS),
        (texts[:3], torch.bfloat16, OUTPUTS),
        (texts[:3], None, OUTPUTS[:1]),
        (texts[:3], None, OUTPUTS[::-1]),  # as the first
    ):
        assert kept_outputs(teacher, tokens_of(teacher, some), autocast, outputs, tmp_path) is not None
    assert len(folders(tmp_path)) == 4


def test_outputs_beyond_the_bound_are_not_kept(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(teacher, texts[:3])
    needed = 2 * len(tokens.ids) * 2 * 32
    monkeypatch.setattr(module, "MOST_BYTES", needed - 1)
    assert kept_outputs(teacher, tokens, None, OUTPUTS, tmp_path) is None
    monkeypatch.setattr(module, "MOST_BYTES", needed)
    assert kept_outputs(teacher, tokens, None, OUTPUTS, tmp_path) is not None


def test_what_was_not_used_for_longest_makes_room_and_who_reads_it_goes_on(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [tokens_of(teacher, [text]) for text in texts[:3]]
    first = kept_outputs(teacher, tokens[0], None, OUTPUTS, tmp_path)
    assert first is not None
    whole = [slice(0, len(tokens[0].ids))]
    first.write(whole, {output: torch.ones(len(tokens[0].ids), 32) for output in OUTPUTS})
    (old,) = folders(tmp_path)
    os.utime(tmp_path / "outputs" / old, (1_000, 1_000))
    assert kept_outputs(teacher, tokens[1], None, OUTPUTS, tmp_path) is not None
    monkeypatch.setattr(module, "MOST_BYTES", sum(2 * len(each.ids) * 2 * 32 + 4 for each in tokens[1:]))
    assert kept_outputs(teacher, tokens[2], None, OUTPUTS, tmp_path) is not None
    assert len(folders(tmp_path)) == 2
    assert old not in folders(tmp_path)
    assert first.read(whole) is not None


def test_on_a_disk_without_room_nothing_is_kept_and_nothing_left(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(free=module.SPARE_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    assert kept_outputs(teacher, tokens_of(teacher, texts[:3]), None, OUTPUTS, tmp_path) is None
    assert folders(tmp_path) == set()
