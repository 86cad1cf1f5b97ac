"""A corpus by name: where its texts come from, its languages, and their mixture."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kdnas_core.data.harvest import harvest
from kdnas_core.data.hub import HUB, parse_hub, read_hub
from kdnas_core.data.task_text import TASK, check_task, learnt_texts
from kdnas_core.data.text_files import ENDINGS, LOCAL, check_file, read_file
from kdnas_core.errors import BadInput

PACKAGED = "packaged"

_JOINT = re.compile(r"(?<=\s)\+(?=\s)")


@dataclass(frozen=True)
class Part:
    """One source of text and the name of its language.

    Attributes:
        source: `packaged`, `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`, `task:` and the name of a task, or the path
            of a file.
        language: the name of the file or of the task's folder without its ending, the hub's config (else the
            data set's name without its owner), or `packaged`. Of equal names the second is NAME-2, and so on.
    """

    source: str
    language: str

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream, which is read only as far as needed."""
        return self.source.startswith(HUB)

    @property
    def task(self) -> str | None:
        """The task whose texts it is, if it is one's."""
        return self.source.removeprefix(TASK) if self.source.startswith(TASK) else None


def parts_of(source: str) -> tuple[Part, ...]:
    """Returns the parts of a corpus, in order; reads no text.

    Args:
        source: one source; a folder with one file a language (hidden files and read-mes are ignored); or
            several of these joined by " + ".

    Raises:
        BadInput: a folder holds no corpus file or one of another kind, a side of a "+" is empty, a part is
            named twice, or the name of a hub data set is malformed.
    """
    sources = list(chain.from_iterable(map(_files_of, _sides(source))))
    for number, one in enumerate(sources):
        if one in sources[:number]:
            raise BadInput(f"The corpus {source} names {one} twice; name each of its parts once.")
    names = _unequal(map(_language_of, sources))
    return tuple(Part(*pair) for pair in zip(sources, names, strict=True))


def _sides(source: str) -> list[str]:
    sides = _JOINT.split(f" {source} ")
    if len(sides) == 1 or _exists(source):  # a file's name may hold a " + "
        return [source]
    stripped = [side.strip() for side in sides]
    if not all(stripped):
        raise BadInput(f"'{source}' has nothing on one side of a '+'; name a corpus on each side.")
    return stripped


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # several names in a row can be too long for one
        return False


def _files_of(source: str) -> list[str]:
    """The files of a folder; any other source is returned as it is."""
    try:
        # "" would be the working folder
        if not source or source == PACKAGED or source.startswith((HUB, TASK)) or not Path(source).is_dir():
            return [source]
        files = sorted(path for path in Path(source).iterdir() if not _is_aside(path.name))
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({error.strerror}); fix that, or name another.") from None
    if not files:
        raise BadInput(f"The folder {source} holds no corpus; put one file a language into it, as en.txt.")
    for path in files:
        _check_ending(path)
    return [str(path) for path in files]


def _is_aside(name: str) -> bool:
    return name.startswith(".") or name.lower().startswith("readme") or name.lower().endswith(".md")


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(
            f"The folder {path.parent} also holds {path.name}, which is not a corpus file "
            f"({', '.join(ENDINGS)}); take it out."
        )


def _language_of(source: str) -> str:
    source = source.removeprefix(TASK)
    if source == PACKAGED:
        return PACKAGED
    if source.startswith(HUB):
        hub = parse_hub(source)
        return hub.config or hub.name.rpartition("/")[2]
    # the name of a file can hold bytes that are no character, which no database takes
    return Path(source).stem.encode("utf-8", "replace").decode("utf-8")


def _unequal(names: Iterable[str]) -> Iterator[str]:
    taken: set[str] = set()
    for name in names:
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free)
        yield free


def check_corpus(source: str) -> None:
    """Checks a corpus without reading a table or using the network.

    Args:
        source: as for `parts_of`.

    Raises:
        BadInput: the source is of no known kind, a hub name is malformed, a file is missing, empty, binary or
            not UTF-8, or `parts_of` refuses it.
    """
    for part in parts_of(source):
        _check_plain(part.source)


def read_corpus(
    source: str, cache: Path, seed: int, limit: int, progress: Callable[[str], None] | None = None
) -> list[str]:
    """Reads up to `limit` different texts of one source, in an order shuffled by the seed.

    `source` is `packaged`; `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`; `task:` and the name of a task, for the
    texts of its training splits; or the path of a file. The column of a table is `text`, else `sentence`,
    else its only column of strings. The packaged corpus is cached in `cache`, hub data sets in the hub's own
    cache. A hub data set is a shuffled stream and is downloaded only as far as needed. `read_texts` reads
    several sources at once.

    Raises:
        BadInput: the source cannot be read, or holds no text.
    """
    _check_plain(source)
    if source.startswith(HUB):
        texts = list(islice(_usable(read_hub(source, seed, progress)), limit))
    else:
        texts = list(_usable(_from_disk(source, cache, progress)))
        random.Random(seed).shuffle(texts)
    if not texts:
        raise BadInput(f"{source} holds no text; name a corpus that does, for instance 'packaged'.")
    return texts[:limit]


def _check_plain(source: str) -> None:
    if source == PACKAGED:
        return
    if source.startswith(HUB):
        parse_hub(source)
        return
    if source.startswith(TASK):
        check_task(source.removeprefix(TASK))
        return
    try:
        _check_kind(source)
        check_file(Path(source))
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({error.strerror}); fix that, or name another.") from None


def _check_kind(source: str) -> None:
    path = Path(source)
    if not source or (path.suffix.lower() not in ENDINGS and not path.exists()):
        raise BadInput(
            f"'{source}' is not a corpus; name 'packaged', 'hub:NAME', 'task:NAME', {LOCAL}, a folder with "
            "one such file a language, or several of these with ' + ' between them."
        )


def _usable(values: Iterable[Any]) -> Iterator[str]:
    """The different, non-empty strings among the values, stripped."""
    seen: set[str] = set()
    for value in values:
        if not isinstance(value, str):
            continue
        # JSON can hold lone surrogates, which no tokenizer takes
        text = value.encode("utf-8", "replace").decode("utf-8").strip()
        if text and text not in seen:
            seen.add(text)
            yield text


def _from_disk(source: str, cache: Path, progress: Callable[[str], None] | None) -> Iterable[Any]:
    if source == PACKAGED:
        return [paragraph.text for paragraph in harvest(cache, progress)]
    if source.startswith(TASK):
        return learnt_texts(source.removeprefix(TASK), cache)
    return read_file(Path(source))


@dataclass(frozen=True)
class Text:
    """A passage and its language, as `Part.language` names it."""

    text: str
    language: str


def read_texts(
    source: str,
    cache: Path,
    seed: int,
    limit: int,
    temperature: float,
    progress: Callable[[str], None] | None = None,
) -> list[Text]:
    """Reads up to `limit` different texts of a corpus, its languages mixed by temperature.

    The order is shuffled so that the first k texts have the mixture of the whole, for any k. A text that two
    languages share counts for the first. A corpus of one part gives the texts of `read_corpus`, in its order.

    Args:
        source: as for `parts_of`.
        cache: folder for the packaged corpus.
        seed: determines the choice and the order.
        limit: the most texts; also the most that are read from each hub data set.
        temperature: as in `quotas`.
        progress: called with a sentence on what is being read.

    Raises:
        BadInput: a part cannot be read or adds no text, or the temperature is not above 0.
    """
    parts = parts_of(source)
    if len(parts) == 1:
        texts = read_corpus(parts[0].source, cache, seed, limit, progress)
        return [Text(text, parts[0].language) for text in texts]
    by_language = _texts_of(parts, cache, seed, limit, progress)
    wanted = quotas({language: len(texts) for language, texts in by_language.items()}, limit, temperature)
    return _mixed({language: texts[: wanted[language]] for language, texts in by_language.items()}, seed)


def quotas(counts: Mapping[str, int], limit: int, temperature: float) -> dict[str, int]:
    """Returns the number of texts of each language; they sum to min(limit, sum of counts).

    The share of a language with n texts is proportional to n ** (1 / temperature). A language with fewer
    texts than its share gives them all, and the others share the rest by the same rule. Rounding is by
    largest remainders.

    Args:
        counts: number of texts by language.
        limit: the most texts of all languages together.
        temperature: above 0; 1 mixes in proportion, a high one evenly. XLM-R's exponent of 0.3 (arXiv
            1911.02116, section 3.1) is a temperature of 3.33.

    Raises:
        BadInput: the temperature is not above 0.
    """
    if not temperature > 0:
        raise BadInput(f"The temperature of the languages is {temperature}; set one above 0.")
    left = min(limit, sum(counts.values()))
    taken = dict.fromkeys(counts, 0)
    open_counts = {language: count for language, count in counts.items() if count}
    while True:
        shares = _shares(open_counts, left, temperature)
        full = {
            language: open_counts[language] for language in shares if shares[language] >= counts[language]
        }
        if not full:
            return taken | _rounded(shares, left)
        taken |= full
        left -= sum(full.values())
        open_counts = {name: count for name, count in open_counts.items() if name not in full}


def _shares(counts: Mapping[str, int], total: int, temperature: float) -> dict[str, float]:
    # divided by the largest before the power, which overflows where the temperature is low
    largest = max(counts.values(), default=1)
    weights = {language: (count / largest) ** (1 / temperature) for language, count in counts.items()}
    whole = sum(weights.values())
    return {language: total * weight / whole for language, weight in weights.items()}


def _rounded(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to `total`: each share rounded down, and one more for the largest remainders."""
    floors = {language: int(share) for language, share in shares.items()}
    by_remainder = sorted(shares, key=lambda language: floors[language] - shares[language])
    for language in by_remainder[: total - sum(floors.values())]:
        floors[language] += 1
    return floors


def _texts_of(
    parts: tuple[Part, ...], cache: Path, seed: int, limit: int, progress: Callable[[str], None] | None
) -> dict[str, list[str]]:
    """The texts of each language without those of the languages before it."""
    by_language: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, part in enumerate(parts):
        # parallel files align by line: with one seed all languages would choose the same sentences
        most = limit if part.is_stream else sys.maxsize
        texts = read_corpus(part.source, cache, seed + number, most, progress)
        by_language[part.language] = [text for text in texts if text not in seen]
        if not by_language[part.language]:
            raise BadInput(f"Every text of {part.source} is in an earlier part of the corpus; leave it out.")
        seen.update(by_language[part.language])
    return by_language


def _mixed(texts: Mapping[str, list[str]], seed: int) -> list[Text]:
    # A plain shuffle could give a language no text of a small held-out set. Instead the n texts of a language
    # have n intervals of equal length, and each text a random place within its interval.
    rng = random.Random(seed)
    placed = [
        ((rank + rng.random()) / len(of_language), Text(text, language))
        for language, of_language in texts.items()
        for rank, text in enumerate(of_language)
    ]
    return [text for _, text in sorted(placed, key=lambda pair: pair[0])]
