from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizer

from kdnas_core.distillation.augmentation import prediction
from kdnas_core.distillation.augmentation import variants as module
from kdnas_core.distillation.augmentation.candidates import WordCandidates, augmenter_for
from kdnas_core.distillation.augmentation.prediction import predict, predictor_of
from kdnas_core.distillation.augmentation.variants import Augmentation, Row, augment
from kdnas_core.distillation.augmentation.words import (
    STOP_WORDS,
    UNSPACED,
    Candidates,
    Place,
    Reading,
    whole_words,
)
from kdnas_core.errors import BadInput
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.vocabulary import Vocabulary
from tests.sentences import is_one_sentence
from tests.tiny import made_up_words, teacher_of, whole_vocabulary
from tests.tiny_families import DISTINCT, family_teacher, model_of
from tests.tiny_xlmr import made_up_texts, tiny_xlmr

ALL = Augmentation(copies=8, chance=1.0, seed=3)
LONGEST = 60  # tokens


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def words(teacher: Teacher) -> WordCandidates:
    return words_of(teacher)


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """SentencePiece, and six languages in four scripts."""
    folder = tmp_path_factory.mktemp("xlmr")
    return load_teacher(str(tiny_xlmr(folder, made_up_texts(), steps=0)))


@pytest.fixture(scope="module")
def roberta(tiny_teacher: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """Byte-level BPE."""
    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=900, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    tokenizer = RobertaTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    model = model_of("roberta", len(tokenizer), pad=1)
    return dataclasses.replace(teacher_of(tiny_teacher), name="bpe", model=model, tokenizer=tokenizer)


def head_of(teacher: Teacher) -> TeacherHead:
    return made_up_words(teacher, whole_vocabulary(teacher))


def words_of(teacher: Teacher) -> WordCandidates:
    return augmenter_for(teacher, head_of(teacher), sequence_length=LONGEST)[0]


def alone(texts: list[str]) -> list[Row]:
    return [(text, None) for text in texts]


def places_of(words: WordCandidates, text: str) -> list[str]:
    (reading,) = words.read([text])
    return [reading.word(place) for place in reading.places]


def one_piece(words: WordCandidates, texts: list[str]) -> list[tuple[Reading, Place]]:
    return [
        (reading, place)
        for reading in words.read(texts)
        for place in reading.places
        if place.token is not None
    ]


# Candidates


def reference(teacher: Teacher, head: TeacherHead, reading: Reading, place: Place, count: int) -> set[str]:
    """Runs the teacher once for each word, sorts all logits, and keeps only other whole words of letters."""
    encoded = teacher.tokenizer(reading.text, return_tensors="pt", truncation=True, max_length=LONGEST)
    token = encoded.char_to_token(place.start)
    assert token == encoded.char_to_token(place.end - 1)
    encoded["input_ids"][0, token] = teacher.tokenizer.mask_token_id
    with torch.no_grad():
        states = teacher.model(**encoded).last_hidden_state[0]
        order = head.logits(states)[token].argsort(descending=True).tolist()
    ranked = teacher.tokenizer.convert_ids_to_tokens(order)
    word = reading.word(place).lower()
    return {*[token for token in ranked if token.isalpha() and len(token) > 1 and token != word][:count]}


@pytest.mark.parametrize("kind", DISTINCT)
def test_candidates_of_many_places_at_once_are_those_of_one_call_a_word(
    kind: str, teacher: Teacher, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "BATCH", 200)
    other = family_teacher(teacher, kind)
    head = head_of(other)
    some = [text.lower() for text in texts[:6]]
    asked = one_piece(words_of(other), some)
    found = predict(predictor_of(other, head, None), asked, 15)
    assert len(found) > 15
    for reading, place in asked:
        assert set(found[reading.text, place]) == reference(other, head, reading, place, 15)


def test_candidates_are_the_same_in_any_company(words: WordCandidates, texts: list[str]) -> None:
    asked = one_piece(words, texts[:20])
    assert words.predictor is not None
    together = predict(words.predictor, asked, 5)
    for one in asked[::7]:
        assert predict(words.predictor, [one], 5).items() <= together.items()


def test_of_the_likeliest_words_many_stay_so_in_bfloat16(
    teacher: Teacher, words: WordCandidates, texts: list[str]
) -> None:
    asked = one_piece(words, texts[:10])
    head = head_of(teacher)
    exact, fast = (predict(predictor_of(teacher, head, dtype), asked, 15) for dtype in (None, torch.bfloat16))
    shared = sum(len({*exact[key]} & {*fast[key]}) for key in exact)
    assert shared > 0.8 * sum(map(len, exact.values()))
    assert teacher.model.dtype == torch.float32


def test_every_candidate_is_another_whole_word(words: WordCandidates, texts: list[str]) -> None:
    whole = set(whole_words(words.tokenizer, 600).values())
    found: Candidates = words.candidates(one_piece(words, texts[:5]), 15, {})
    for (text, place), some in found.items():
        assert len(some) == 15
        assert {word.lower() for word in some} <= whole - {text[place.start : place.end].lower()}


def test_which_tokens_are_whole_words_is_told_of_every_kind_of_tokenizer(
    teacher: Teacher, roberta: Teacher, xlmr: Teacher
) -> None:
    for other, mark in ((teacher, ""), (roberta, "Ġ"), (xlmr, "▁")):
        begin = {
            number: token.removeprefix(mark)
            for token, number in other.tokenizer.get_vocab().items()
            if token.startswith(mark) and not token.startswith("Ġâ")  # bytes of quotation marks
        }
        expected = {number: word for number, word in begin.items() if word.isalpha() and len(word) > 1}
        whole = whole_words(other.tokenizer, len(other.tokenizer))
        assert list(whole) == sorted(whole)
        assert len(expected) > 20
        assert {number: word for number, word in whole.items() if number in expected} == expected
        more = [word for number, word in whole.items() if number not in expected]
        assert all(UNSPACED.match(word) for word in more)
        assert ("在" in more) == (other is xlmr)
    assert 0 < len(whole_words(teacher.tokenizer, 300)) < len(whole_words(teacher.tokenizer, 600))


# Places


def test_stop_words_numbers_identifiers_and_signs_are_no_words_to_replace(words: WordCandidates) -> None:
    text = "The value of x86, of foo_bar and 3.14: don't COMPARE naïve  values -- it's, er, state-of-the-art!"
    assert places_of(words, text) == ["value", "COMPARE", "naïve", "values", "er", "state", "art"]
    assert {"the", "of", "don", "t", "it", "s"} <= STOP_WORDS


def test_marks_and_joiners_belong_to_the_word(words: WordCandidates) -> None:
    text = "मेरी किताब می‌خواهم cafe\u0301 👩‍👩‍👧"
    assert places_of(words, text) == ["मेरी", "किताब", "می‌خواهم", "cafe\u0301"]


def test_a_place_has_a_token_if_that_is_the_words_only_piece(
    teacher: Teacher, roberta: Teacher, xlmr: Teacher, texts: list[str]
) -> None:
    for other in (teacher, roberta, xlmr):
        of_other = texts[:20] if other is not xlmr else made_up_texts()["sw"]
        pieces = set()
        for reading in words_of(other).read(of_other):
            encoded = other.tokenizer(reading.text)
            for place in reading.places:
                before, upto = reading.text[: place.start].rstrip(), reading.text[: place.end]
                count = len(other.tokenizer.tokenize(upto)) - len(other.tokenizer.tokenize(before))
                assert place.token == (encoded.char_to_token(place.start) if count == 1 else None)
                pieces.add(count)
        assert {1, 2} <= pieces


def test_pieces_of_one_character_are_no_word_of_one_piece(roberta: Teacher) -> None:
    (reading,) = words_of(roberta).read(["the я is"])
    assert [reading.word(place) for place in reading.places] == ["я"]
    assert len(reading.ids) > 5
    assert reading.places[0].token is None


def test_without_spaces_between_words_the_tokenizers_pieces_are_the_words(xlmr: Teacher) -> None:
    text = made_up_texts()["zh"][0]
    found = places_of(words_of(xlmr), text)
    assert len(found) > 2
    assert "".join(found) in text.removesuffix("。")


# Variants


def test_with_a_chance_of_nothing_nothing_is_made(words: WordCandidates, texts: list[str]) -> None:
    assert augment(alone(texts[:5]), words, Augmentation(chance=0.0)) == [[]] * 5
    assert augment(alone(texts[:5]), words, Augmentation(copies=0, chance=1.0)) == [[]] * 5
    assert augment([], words, ALL) == []


def test_with_a_chance_of_one_every_word_is_replaced_by_a_candidate_and_nothing_else(
    teacher: Teacher, roberta: Teacher, xlmr: Teacher, texts: list[str]
) -> None:
    for other in (teacher, roberta, xlmr):
        words = words_of(other)
        of_other = texts[:3] if other is not xlmr else [some[5] for some in made_up_texts().values()]
        for reading, made in zip(words.read(of_other), augment(alone(of_other), words, ALL), strict=True):
            candidates = words.candidates([(reading, place) for place in reading.places], 15, {})
            some = [candidates[reading.text, place] or (reading.word(place),) for place in reading.places]
            assert len(made) > 1
            for text, second in made:
                assert second is None
                assert fits(reading, text, some)


def fits(reading: Reading, text: str, some: list[tuple[str, ...]]) -> bool:
    """Returns whether a text is the one read, with one of the words at each place."""
    ends, at = {0}, 0
    for place, words in zip(reading.places, some, strict=True):
        gap = reading.text[at : place.start]
        ends = {
            end + len(gap) + len(word)
            for end, word in itertools.product(ends, words)
            if text[end:].startswith(gap + word)
        }
        at = place.end
    return any(text[end:] == reading.text[at:] for end in ends)


def test_about_as_many_words_are_replaced_as_the_chance_says(words: WordCandidates, texts: list[str]) -> None:
    some = [text for text in texts if len(places_of(words, text)) == 8][:10]
    made = augment(alone(some), words, Augmentation(copies=20, chance=0.4))
    shares = []
    for text, variants in zip(some, made, strict=True):
        (reading,) = words.read([text])
        whole = [reading.word(place) for place in reading.places]
        for variant, _ in variants:
            if len(varied := places_of(words, variant)) == 8:
                shares.append(sum(one != other for one, other in zip(whole, varied, strict=True)) / 8)
    assert len(shares) > 50
    assert 0.33 < sum(shares) / len(shares) < 0.47


def test_variants_differ_from_the_row_and_each_other_and_are_at_most_so_many(
    words: WordCandidates, texts: list[str]
) -> None:
    rows = alone([*texts[:10], "Value", "The value"])
    made = augment(rows, words, Augmentation(copies=20, candidates=3, chance=0.8))
    for row, variants in zip(rows, made, strict=True):
        assert len({row, *variants}) == len(variants) + 1 <= 21
    assert [len(variants) for variants in made[-2:]] == [3, 3]
    assert max(map(len, made)) > 15


def test_case_is_kept(words: WordCandidates) -> None:
    (made,) = augment(alone(["Value of the OBJECT object"]), words, ALL)
    for text, _ in made:
        first, *_, upper, lower = text.split(" ")
        assert first.istitle() and upper.isupper() and lower.islower()


def test_variants_are_those_of_the_seed_whatever_the_other_rows(
    words: WordCandidates, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = alone(texts[:12])
    made = augment(rows, words, Augmentation(seed=1))
    assert augment(rows, words, Augmentation(seed=2)) != made
    monkeypatch.setattr(module, "SLAB", 5)
    monkeypatch.setattr(prediction, "BATCH", 150)
    assert augment(rows[::-1], words, Augmentation(seed=1)) == made[::-1]
    assert augment(rows[3:4], words, Augmentation(seed=1)) == made[3:4]


def test_the_same_sentence_is_varied_otherwise_beside_another(
    words: WordCandidates, texts: list[str]
) -> None:
    one, other = augment([(texts[0], texts[1]), (texts[0], texts[2])], words, Augmentation())
    assert len({first for first, _ in one} & {first for first, _ in other}) < 10


def test_the_sentences_of_a_pair_are_varied_each_from_the_original(
    words: WordCandidates, texts: list[str]
) -> None:
    row = (texts[0], texts[1])
    (made,) = augment([row], words, Augmentation(copies=20, chance=0.5))
    gaps = [gaps_of(words, text) for text in row]
    for variant in made:
        assert all(word in (variant[at] or "") for at in (0, 1) for word in gaps[at])
    assert len({first for first, _ in made}) > 10
    assert len({second for _, second in made}) > 10
    assert None not in {second for _, second in made}


def gaps_of(words: WordCandidates, text: str) -> list[str]:
    """What stands between the words that may be replaced."""
    (reading,) = words.read([text])
    borders = [0, *itertools.chain(*[(place.start, place.end) for place in reading.places]), len(text)]
    return [text[start:end] for start, end in zip(borders[::2], borders[1::2], strict=True)]


def test_only_words_that_some_copy_replaces_are_asked_about(
    words: WordCandidates, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(self: WordCandidates, some: list[tuple[Reading, Place]], *others: object) -> Candidates:
        asked.append(len(some))
        return {(reading.text, place): ("word",) for reading, place in some}

    monkeypatch.setattr(WordCandidates, "candidates", counted)
    rows = alone(texts[:30] * 2)
    augment(rows, words, Augmentation(copies=1, chance=0.3))
    augment(rows, words, Augmentation(copies=1, chance=1.0))
    assert 0.2 < asked[0] / asked[1] < 0.4
    assert asked[1] == sum(len(places_of(words, text)) for text in texts[:30])


def test_texts_without_words_are_left_alone(words: WordCandidates) -> None:
    rows: list[Row] = [
        ("", None),
        ("👩‍👩‍👧 😀", None),
        ("12 + 3 = 15", ""),
        ("it is", "and so are they"),
        ("我", None),
    ]
    assert augment(rows, words, ALL) == [[]] * len(rows)


def test_of_a_long_text_the_beginning_is_varied_and_the_rest_stays(words: WordCandidates) -> None:
    text = "The value of an object, again. " * 3300
    assert len(text) > 100_000
    (made,) = augment(alone([text]), words, ALL)
    assert len(made) == 8
    for variant, _ in made:
        assert variant[:200] != text[:200]
        assert variant.endswith(text[1_000:])
    assert augment(alone(["a" * 100_000]), words, ALL)[0] == []


def test_progress_is_told_up_to_the_end(
    words: WordCandidates, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLAB", 2)
    told: list[float] = []
    augment(alone(texts[:5]), words, Augmentation(copies=1), told.append)
    assert told == [0.4, 0.8, 1.0]


@pytest.mark.parametrize(
    "settings", [{"copies": -1}, {"candidates": 0}, {"chance": 1.5}, {"chance": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput) as refused:
        dataclasses.replace(Augmentation(), **settings)  # type: ignore[arg-type]
    assert is_one_sentence(str(refused.value))


# What it is made of


def test_a_teacher_without_a_head_replaces_all_words_by_neighbours_and_says_so(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    words, (note,) = augmenter_for(teacher, None)
    assert is_one_sentence(note)
    assert "masked-LM" in note
    assert augment(alone(texts[:1]), words, ALL)[0]
    (tmp_path / "vectors.txt").write_text("cat 1 0\ndog 1 0.1\n")
    words, (note,) = augmenter_for(teacher, None, tmp_path / "vectors.txt")
    assert "vectors.txt" in note
    assert augment(alone(["A Cat in value"]), words, ALL) == [[("A Dog in value", None)]]


def test_words_of_several_pieces_have_neighbours_and_those_of_one_what_the_teacher_says(
    teacher: Teacher, tmp_path: Path
) -> None:
    (tmp_path / "vectors.txt").write_text("value 1 0\nzyzzyva 1 0.1\nquagga 1 0.2\n")
    words, notes = augmenter_for(teacher, head_of(teacher), tmp_path / "vectors.txt")
    assert notes == []
    (reading,) = words.read(["value zyzzyva"])
    one, several = reading.places
    assert one.token is not None
    found = words.candidates([(reading, one), (reading, several)], 15, {})
    assert found[reading.text, several] == ("quagga", "value")
    assert "zyzzyva" not in found[reading.text, one]
    assert len(found[reading.text, one]) == 15


def test_a_head_for_some_of_the_words_is_refused(teacher: Teacher) -> None:
    whole = whole_vocabulary(teacher)
    some = head_of(teacher).only(Vocabulary(whole.rows[:50], whole.numbers))
    with pytest.raises(ValueError, match="50 of 600"):
        augmenter_for(teacher, some)


def test_no_more_is_read_than_the_teacher_has_positions_for(teacher: Teacher) -> None:
    for kind in DISTINCT:
        other = family_teacher(teacher, kind)
        words, _ = augmenter_for(other, head_of(other), sequence_length=10_000)
        (made,) = augment(alone(["value of an object " * 100]), words, Augmentation(copies=1))
        assert len(made) == 1


def test_a_tokenizer_that_cannot_tell_characters_is_refused(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(teacher.tokenizer), "is_fast", property(lambda self: False))
    with pytest.raises(BadInput, match="fast tokenizer") as refused:
        augmenter_for(teacher, None)
    assert is_one_sentence(str(refused.value))
