from __future__ import annotations

import random

from kdnas_core.data.harvest import Paragraph
from kdnas_core.data.packaged_task import LIBRARIES, MASK, MOST, SHORTEST, split_up

FILLER = "which is described here at such a length that it says enough to be told apart from others"


def paragraphs(modules: int = 60, each: int = 12) -> list[Paragraph]:
    return [
        Paragraph(f"Paragraph {index} of module {module} {FILLER}.", package, f"{package}.m{module}")
        for package in LIBRARIES[:3]
        for module in range(modules)
        for index in range(each)
    ]


def test_no_module_is_in_two_splits() -> None:
    splits = split_up(paragraphs())
    modules = {
        split: {(each.label, each.sentence.split()[4]) for each in examples}
        for split, examples in splits.items()
    }
    assert all(modules.values())
    assert not modules["train"] & modules["validation"]
    assert not modules["train"] & modules["test"]
    assert not modules["validation"] & modules["test"]


def test_no_library_has_more_than_its_share_of_a_split() -> None:
    splits = split_up(paragraphs(modules=200, each=20))
    for split, examples in splits.items():
        counts = [sum(each.label == label for each in examples) for label in range(3)]
        assert counts == [MOST[split]] * 3


def test_the_order_of_the_paragraphs_changes_nothing() -> None:
    given = paragraphs()
    mixed = random.Random(0).sample(given, len(given))
    assert split_up(mixed) == split_up(given)


def test_the_names_of_libraries_are_masked_and_parts_of_words_are_not() -> None:
    text = f"NumPy, np.zeros, PyTorch, torch_dtype and scikit-learn; the best stamp, standard {FILLER}"
    (example,) = (
        each for examples in split_up([Paragraph(text, "numpy", "numpy.core")]).values() for each in examples
    )
    masked = f"{MASK}, {MASK}.zeros, {MASK}, {MASK}_dtype and {MASK}; the best stamp, standard {FILLER}"
    assert example.sentence == masked
    assert LIBRARIES[example.label] == "numpy"


def test_short_paragraphs_and_other_packages_are_left_out() -> None:
    given = [Paragraph("x" * (SHORTEST - 1), "numpy", "numpy.a"), Paragraph("x" * 100, "click", "click.core")]
    assert not any(split_up(given).values())
