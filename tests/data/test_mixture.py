from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from kdnas_core.data import corpus
from kdnas_core.data.corpus import Text, quotas, read_corpus, read_texts
from kdnas_core.errors import BadInput
from tests.sentences import is_one_sentence

XLMR = 1 / 0.3


def write(folder: Path, counts: Mapping[str, int]) -> str:
    """Writes a folder with this number of texts in each language."""
    for language, count in counts.items():
        lines = [f"{language} {number}" for number in range(count)]
        (folder / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


def texts_of(source: str, limit: int = 1_000, temperature: float = 1.0, seed: int = 0) -> list[Text]:
    return read_texts(source, Path("no-cache"), seed, limit, temperature)


def counts_of(texts: list[Text]) -> Counter[str]:
    return Counter(text.language for text in texts)


# Quotas


def exact_shares(counts: Mapping[str, int], limit: int, temperature: float) -> dict[str, float]:
    """Computes the shares before rounding in another way: bisection for the level that fills all languages.

    Language l gives min(n_l, level * n_l ** (1 / temperature)); the sum grows with the level.
    """
    numbers = np.array(list(counts.values()), dtype=np.float64)
    weights = np.where(numbers > 0, numbers ** (1 / temperature), 0.0)
    total = min(float(limit), numbers.sum())
    low, high = 0.0, numbers.max() + 1.0
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(numbers, level * weights).sum() < total else (low, level)
    return dict(zip(counts, np.minimum(numbers, high * weights).tolist(), strict=True))


def nearest_whole(shares: Mapping[str, float], counts: Mapping[str, int], total: int) -> float:
    """Computes the least squared distance from the shares to integers that sum to `total`, by trying all."""
    ranges = [range(int(share), min(int(share) + 1, counts[name]) + 1) for name, share in shares.items()]
    tries = [whole for whole in product(*ranges) if sum(whole) == total]
    return min(distance(shares, whole) for whole in tries)


def distance(shares: Mapping[str, float], whole: tuple[int, ...]) -> float:
    return sum((one - other) ** 2 for one, other in zip(shares.values(), whole, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_quotas_are_the_nearest_whole_numbers_to_the_shares(seed: int) -> None:
    rng = random.Random(seed)
    counts = {f"l{number}": int(10 ** rng.uniform(0, 4)) for number in range(rng.randint(1, 6))}
    limit, temperature = int(10 ** rng.uniform(0, 4.2)), rng.choice([0.5, 1.0, 2.0, XLMR, 10.0])

    found = quotas(counts, limit, temperature)

    total = min(limit, sum(counts.values()))
    shares = exact_shares(counts, limit, temperature)
    assert sum(found.values()) == total
    assert list(found) == list(counts)
    for language, share in shares.items():
        assert 0 <= found[language] <= counts[language]
        assert abs(found[language] - share) < 1 + 1e-6
    # whole numbers nearest to given numbers are those of the largest remainders
    assert distance(shares, tuple(found.values())) <= nearest_whole(shares, counts, total) + 1e-6


def test_temperature_1_is_in_proportion_and_a_high_one_even() -> None:
    counts = {"en": 9_000, "fr": 900, "sw": 100}

    assert quotas(counts, 1_000, 1.0) == {"en": 900, "fr": 90, "sw": 10}
    assert quotas(counts, 99, 1e9) == {"en": 33, "fr": 33, "sw": 33}
    assert quotas(counts, 99, float("inf")) == {"en": 33, "fr": 33, "sw": 33}


def test_the_shares_at_the_temperature_of_xlm_r_are_those_of_its_exponent() -> None:
    counts = {"en": 100_000, "sw": 1_000}
    share = 1_000**0.3 / (1_000**0.3 + 100_000**0.3)

    assert quotas(counts, 1_000, XLMR)["sw"] == round(1_000 * share) == 201


def test_a_language_with_less_than_its_share_gives_all_and_the_others_the_rest() -> None:
    assert quotas({"en": 1_000, "fr": 1_000, "sw": 5}, 300, 1e9) == {"en": 148, "fr": 147, "sw": 5}
    # filling one up raises the shares of the others, of which the next is then short
    assert quotas({"a": 1_000, "b": 60, "c": 10}, 200, 1e9) == {"a": 130, "b": 60, "c": 10}


def test_with_room_for_all_every_language_gives_all() -> None:
    counts = {"en": 7, "fr": 0, "sw": 3}

    for temperature in (0.01, 1.0, XLMR, 1e6):
        assert quotas(counts, 10, temperature) == counts
        assert quotas(counts, 10_000, temperature) == counts
    assert quotas(counts, 0, 1.0) == {"en": 0, "fr": 0, "sw": 0}
    assert quotas({}, 10, 1.0) == {}


def test_a_very_low_temperature_takes_the_largest_first_and_overflows_nowhere() -> None:
    assert quotas({"en": 10**6, "fr": 10**5, "sw": 10}, 10**6 + 3, 1e-3) == {"en": 10**6, "fr": 3, "sw": 0}


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(BadInput) as refusal:
        quotas({"en": 1}, 1, temperature)
    assert is_one_sentence(str(refusal.value))


# Texts


def test_a_corpus_of_one_part_gives_the_texts_that_it_always_gave(tmp_path: Path) -> None:
    folder = write(tmp_path, {"en": 50})
    path = str(tmp_path / "en.txt")
    before = read_corpus(path, Path("no-cache"), 3, 20)

    for source in (path, folder):
        assert texts_of(source, 20, XLMR, seed=3) == [Text(text, "en") for text in before]


def test_languages_are_mixed_by_their_quotas(tmp_path: Path) -> None:
    counts = {"en": 400, "fr": 100, "sw": 4}
    texts = texts_of(write(tmp_path, counts), 60, XLMR)

    assert counts_of(texts) == quotas(counts, 60, XLMR)
    assert all(text.text.startswith(f"{text.language} ") for text in texts)
    assert len(set(texts)) == 60


def test_the_share_of_a_local_language_follows_all_its_texts_and_not_the_limit(tmp_path: Path) -> None:
    assert counts_of(texts_of(write(tmp_path, {"en": 900, "fr": 100}), 50)) == {"en": 45, "fr": 5}


def test_any_beginning_is_mixed_as_the_whole(tmp_path: Path) -> None:
    texts = texts_of(write(tmp_path, {"en": 900, "fr": 500, "sw": 25}), 600, 2.0)
    whole = counts_of(texts)

    for length in range(1, len(texts)):
        for language, count in counts_of(texts[:length]).items():
            share = whole[language] / len(texts)
            # at a place of the order each language is at most one text off; so is the sum, once for each
            assert abs(count - length * share) <= 1 + len(whole) * share


def test_the_order_is_no_round(tmp_path: Path) -> None:
    texts = texts_of(write(tmp_path, {"en": 300, "fr": 300}), 600)

    follows_itself = [one.language == other.language for one, other in pairwise(texts)]
    assert 100 < sum(follows_itself) < 300


def test_the_seed_determines_the_texts_and_their_order(tmp_path: Path) -> None:
    source = write(tmp_path, {"en": 100, "fr": 100})

    assert texts_of(source, 50, seed=1) == texts_of(source, 50, seed=1)
    assert set(texts_of(source, 50, seed=1)) != set(texts_of(source, 50, seed=2))


def test_languages_whose_lines_are_translations_do_not_all_give_the_same_lines(tmp_path: Path) -> None:
    texts = texts_of(write(tmp_path, {"en": 1_000, "fr": 1_000}), 200)

    lines = {
        language: {text.text.split()[1] for text in texts if text.language == language}
        for language in ("en", "fr")
    }
    assert len(lines["en"] & lines["fr"]) < 50


def test_a_text_of_two_languages_is_kept_once_for_the_first(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_text("Radio\nHaus", encoding="utf-8")
    (tmp_path / "en.txt").write_text("Radio \nhouse\nhouse", encoding="utf-8")

    expected = {Text("Radio", "de"), Text("Haus", "de"), Text("house", "en")}
    texts = texts_of(str(tmp_path))
    assert len(texts) == 3
    assert set(texts) == expected


def test_a_part_that_adds_nothing_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_text("Radio\nHaus", encoding="utf-8")
    (tmp_path / "en.txt").write_text("Radio", encoding="utf-8")

    with pytest.raises(BadInput, match=r"en\.txt") as refusal:
        texts_of(str(tmp_path))
    assert is_one_sentence(str(refusal.value))
    (tmp_path / "en.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"en\.txt holds no text"):
        texts_of(str(tmp_path))


def test_of_a_hub_set_no_more_than_the_limit_is_read_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, int]] = []

    def read(source: str, cache: Path, seed: int, limit: int, progress: object) -> list[str]:
        asked.append((source, seed, limit))
        return [f"{source} {number}" for number in range(min(limit, 10_000))]

    monkeypatch.setattr(corpus, "read_corpus", read)
    texts = texts_of("hub:mc4:en + hub:mc4:fr + here.txt", 600, 2.0, seed=5)

    assert [call[:2] for call in asked] == [("hub:mc4:en", 5), ("hub:mc4:fr", 6), ("here.txt", 7)]
    assert [call[2] for call in asked[:2]] == [600, 600]
    assert counts_of(texts) == quotas({"en": 600, "fr": 600, "here": 10_000}, 600, 2.0)
