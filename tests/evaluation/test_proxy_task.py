from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdnas_core.data.tasks import Row, Task
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.proxy_task import FEWEST_ROWS, proxy_of, proxy_score
from tests.sentences import is_one_sentence
from tests.tiny import teacher_of

WORDS = ("list", "class")  # which of them is in the text is its class


def a_task(rows: int) -> Task:
    letters = "abcdefghijklmnopqrst"  # a number in words that the tiny tokenizer knows
    names = [" ".join(letters[index // base % 20] for base in (1, 20, 400)) for index in range(rows)]
    texts = [f"the {WORDS[index % 2]} of {name} is here" for index, name in enumerate(names)]
    train = [Row(text, None, float(index % 2)) for index, text in enumerate(texts)]
    validation = [
        Row(f"a {WORDS[index % 2]} that nobody may see", None, float(index % 2)) for index in range(8)
    ]
    return Task("words", ("0", "1"), {"train": train, "validation": validation}, ("validation",))


def test_rows_are_learnt_or_judged_and_never_both(tiny_teacher: Path) -> None:
    proxy = proxy_of(a_task(400), teacher_of(tiny_teacher).tokenizer, 48)
    assert (len(proxy.learnt), len(proxy.judged)) == (300, 100)
    learnt, judged = ({tuple(ids.tolist()) for ids in tokens.ids} for tokens in (proxy.learnt, proxy.judged))
    assert not learnt & judged


def test_no_more_rows_are_taken_than_seconds_allow(tiny_teacher: Path) -> None:
    proxy = proxy_of(a_task(5_000), teacher_of(tiny_teacher).tokenizer, 48)
    assert (len(proxy.learnt), len(proxy.judged)) == (2_000, 1_000)


def test_the_split_that_is_scored_is_not_looked_at(tiny_teacher: Path) -> None:
    task = a_task(400)
    blind = Task(task.name, task.classes, {"train": task.splits["train"]}, task.scored)
    tokenizer = teacher_of(tiny_teacher).tokenizer
    one, other = (proxy_of(each, tokenizer, 48) for each in (task, blind))
    assert [ids.tolist() for ids in one.judged.ids] == [ids.tolist() for ids in other.judged.ids]


@pytest.mark.slow
def test_a_student_that_can_learn_the_task_scores_well_and_is_left_as_it_was(tiny_teacher: Path) -> None:
    teacher = teacher_of(tiny_teacher)
    proxy, steps = proxy_of(a_task(2_400), teacher.tokenizer, 48), []
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    value = proxy_score(teacher.model, proxy, 0, None, lambda step, of: steps.append((step, of)))
    assert value > 0.8
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.model.state_dict().items())
    assert value == proxy_score(teacher.model, proxy, 0, None, lambda step, of: None)


def test_a_task_too_small_for_a_proxy_is_refused(tiny_teacher: Path) -> None:
    with pytest.raises(BadInput) as refusal:
        proxy_of(a_task(FEWEST_ROWS - 1), teacher_of(tiny_teacher).tokenizer, 48)
    assert is_one_sentence(str(refusal.value))
