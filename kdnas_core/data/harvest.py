"""The packaged corpus: English prose from the documentation installed on the user's own machine.

Source files are read as text, so nothing is imported and nothing is redistributed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import platform
import re
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdnas_core.files import write_whole

logger = logging.getLogger(__name__)

# Raise it when the same packages would give other paragraphs: this invalidates every cache.
HARVEST_VERSION = 2

SHORTEST = 60  # characters; shorter ones are mostly one-line summaries that repeat a name
LONGEST = 2_000  # characters; longer ones are mostly generated lists of properties

PACKAGES = (
    *("PIL", "altair", "anyio", "click", "datasets", "fsspec", "huggingface_hub", "jinja2", "joblib"),
    *("networkx", "numpy", "onnx", "onnxruntime", "onnxscript", "optuna", "packaging", "pandas"),
    *("plotly", "psutil", "pyarrow", "pydantic", "pygments", "requests", "rich", "safetensors", "scipy"),
    *("sentence_transformers", "sklearn", "starlette", "streamlit", "sympy", "tokenizers", "torch"),
    *("tqdm", "transformers", "typer"),
)
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where the import name differs
_SKIPPED_FOLDERS = {"test", "tests", "testing", "idle_test", "_vendor", "externals"}

_SECTION = re.compile(
    r"(args|arguments|parameters|params|keyword (args|arguments)|attributes|returns?|raises|yields|warns"
    r"|examples?|usage|references|see also|inputs?|outputs?|shape|methods)( examples?)?:{0,2}",
    re.IGNORECASE,
)
_UNDERLINE = re.compile(r"[-=~^\"'*#+]{3,}")
_CODE_LINE = re.compile(
    r"""^[ ]*(
        >>>|\.\.\.|```|\$[ ]|\||\+--|\#|import[ ]|from[ ]\S+[ ]import[ ]  # doctests, shells, tables, imports
        |@\w|:(param|type|arg|returns?|rtype|raises?|i?var|vartype|keyword)\b  # Sphinx and epydoc fields
        |\*{0,2}\w[\w.]*(,[ ]\*{0,2}\w[\w.]*)*[ ]:[ ]  # NumPy: "name : type"
        |[-*]?[ ]*\**`{0,2}\**[\w.]+`{0,2}\**,?[ ]\(.*\)([ ]?:|$)  # Google: "name (type): ..."
        |\**[a-z_][\w.]*:([ ]|$)  # "name: type"
    )""",
    re.MULTILINE | re.VERBOSE,
)
_BULLET = re.compile(r"^[ ]*([-*+•] |\S+ +--? )", re.MULTILINE)
_MARKUP = (
    (re.compile(r":[\w:+-]+:`[~!]?([^`<]*?)(\s*<[^>`]*>)?`"), r"\1"),  # :class:`~torch.Tensor`
    (re.compile(r"`([^`<]+?)\s*<[^>`]+>`_{1,2}"), r"\1"),  # `text <url>`_
    (re.compile(r"\[([^\]]+)\]\([^)\s]+\)"), r"\1"),  # [text](url)
    (re.compile(r"\s*\[[\w#]+\]_"), ""),  # [1]_
    (re.compile(r"^([-*+•]|\d+[.)])\s+"), ""),
    (re.compile(r"::$"), ":"),
)
# Whatever comes before a comment or a string, and that comment or string. The possessive repeats (`*+`) never
# try again, so a string without an end costs no more than another one.
_STRING_OR_COMMENT = re.compile(
    r"""
    (?P<before>[^"'#]*+)
    (?:
        \#[^\n]*+
        |\"{3}(?P<double>[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+)\"{3}
        |'{3}(?P<single>[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+)'{3}
        |"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"
        |'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'
        |.|\Z
    )""",
    re.DOTALL | re.VERBOSE,
)
# The most common English words; code, tables and lists of names have few of them.
_COMMON_WORDS = {
    *(
        "the",
        "a",
        "an",
        "of",
        "to",
        "is",
        "in",
        "and",
        "for",
        "be",
        "by",
        "that",
        "with",
        "are",
        "if",
        "this",
    ),
    *("as", "on", "it", "or", "when", "from", "not", "at", "can", "will", "which"),
}


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of prose, and the package and module that it documents."""

    text: str
    package: str
    module: str


@dataclass(frozen=True)
class Source:
    """An installed package, and the folders (or the one file) of its modules."""

    package: str
    version: str
    folders: tuple[Path, ...]


def harvest(cache: Path, progress: Callable[[str], None] | None = None) -> list[Paragraph]:
    """Returns the prose of the installed documentation, harvested once and then read from `cache`.

    There are about 70,000 paragraphs. The first call takes some ten seconds, later ones one. The order is
    by package, module and position. `progress` is called with the package that is being read.
    """
    return harvest_sources(installed_sources(), cache, progress)


def harvest_sources(
    sources: list[Source], cache: Path, progress: Callable[[str], None] | None = None
) -> list[Paragraph]:
    """As `harvest`, for the given sources."""
    sources = sorted(sources, key=lambda source: source.package)
    path = cache / f"harvest-{_fingerprint(sources)}.jsonl"
    remembered = _read(path)
    if remembered is not None:
        return remembered
    paragraphs = list(_unrepeated(_all_paragraphs(sources, progress or logger.info)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(vars(paragraph)) + "\n" for paragraph in paragraphs).encode())
    return paragraphs


def installed_sources() -> list[Source]:
    """Returns the standard library and the installed ones of `PACKAGES`; imports none."""
    standard = Path(sysconfig.get_path("stdlib"))
    sources = [Source("python", platform.python_version(), (standard,))]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        places = spec.submodule_search_locations or [spec.origin or ""]
        sources.append(Source(name, _version(name), tuple(Path(place) for place in places if place)))
    return sources


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _fingerprint(sources: list[Source]) -> str:
    versions = [(source.package, source.version) for source in sources]
    facts = json.dumps([HARVEST_VERSION, platform.python_version(), versions])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _all_paragraphs(sources: list[Source], progress: Callable[[str], None]) -> Iterator[Paragraph]:
    for number, source in enumerate(sources, 1):
        progress(f"Reading the documentation of {source.package} ({number} of {len(sources)})")
        yield from _paragraphs(source)


def _paragraphs(source: Source) -> Iterator[Paragraph]:
    seen: set[str] = set()  # of the source's blocks; finding out that one is prose takes longer
    # sorted: file systems list folders in different orders
    for module, path in sorted(_modules(source)):
        for document in _documents(path, module):
            for block in re.split(r"\n\s*\n", inspect.cleandoc(document)):
                if block in seen:
                    continue
                seen.add(block)
                text = prose(block)
                if text is not None:
                    yield Paragraph(text, source.package, module)


def _unrepeated(paragraphs: Iterable[Paragraph]) -> Iterator[Paragraph]:
    seen: set[str] = set()
    for paragraph in paragraphs:
        if paragraph.text not in seen:
            seen.add(paragraph.text)
            yield paragraph


def _modules(source: Source) -> Iterator[tuple[str, Path]]:
    """The dotted name and the file of each module."""
    prefix = () if source.package == "python" else (source.package,)
    for folder in source.folders:
        if folder.is_file():
            yield source.package, folder
            continue
        for path in _python_files(folder):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            yield ".".join(parts).removesuffix(".__init__"), path


def _python_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.suffix == ".py":
            yield entry
        # a folder that cannot be imported (site-packages, lib-dynload) is not part of the package
        elif entry.name.isidentifier() and entry.name not in _SKIPPED_FOLDERS and entry.is_dir():
            yield from _python_files(entry)


def _documents(path: Path, module: str) -> list[str]:
    """The docstrings of a file; none if it cannot be read."""
    try:
        code = path.read_text("utf-8-sig")
        # the language reference is one dictionary of texts
        return _all_strings(code) if module == "pydoc_data.topics" else list(_docstrings(code))
    except (OSError, SyntaxError, ValueError) as error:
        logger.debug(f"Skipped {path}: {error}")
        return []


def _docstrings(code: str) -> Iterator[str]:
    """The triple-quoted strings that begin a line, as docstrings do, or are behind a name with "doc".

    The latter document compiled functions: `add_docstr(torch.abs, ...)`. A syntax tree takes 30 times as long
    and has nearly the same prose; escapes stay as they are written.
    """
    for found in _STRING_OR_COMMENT.finditer(code):
        text = found["double"] or found["single"]
        line = found["before"].rpartition("\n")[2]
        if text and (line.strip() in {"", "r", "R", "u", "U"} or "doc" in line.lower()):
            yield text.replace("\\\n", "")


def _all_strings(code: str) -> list[str]:
    constants = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def prose(block: str) -> str | None:
    """Returns a block of documentation as one line of plain text, or None if it is not English prose."""
    if len(block) < SHORTEST:
        return None
    lines = textwrap.dedent(block).split("\n")
    if len(lines) > 1 and _UNDERLINE.fullmatch(lines[1].strip()):  # a title; its text may begin right below
        lines = [] if _SECTION.fullmatch(lines[0].strip()) else lines[2:]
    if not lines or _is_code(lines, indented=block[:1].isspace()):
        return None
    text = " ".join(" ".join(lines).split())
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text if _is_english(text) else None


def _is_code(lines: list[str], indented: bool) -> bool:
    if indented and any(line[:1].isspace() for line in lines):  # indented prose is even, code seldom is
        return True
    if lines[0].startswith(("..", "http", "\\")) or _SECTION.fullmatch(lines[0].strip()):
        return True
    body = "\n".join(lines)
    return _CODE_LINE.search(body) is not None or len(_BULLET.findall(body)) > 1


def _is_english(text: str) -> bool:
    # no tokenizer takes lone surrogates, which are not printable; a backslash means a formula
    if not SHORTEST <= len(text) <= LONGEST or "\\" in text or not text.isprintable():
        return False
    words = [word.strip(".,;:!?()'\"`*_[]").lower() for word in text.split()]
    plain = sum(word.replace("-", "").replace("'", "").isalpha() for word in words)
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    common = sum(word in _COMMON_WORDS for word in words)
    return plain >= 0.75 * len(words) and letters >= 0.83 * len(text) and common >= max(2, 0.12 * len(words))


def _read(path: Path) -> list[Paragraph] | None:
    """The paragraphs of a cache file; None if it is missing or damaged."""
    try:
        lines = path.read_text("utf-8").splitlines()
        return [Paragraph(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        logger.warning(f"{path} is damaged; harvesting again: {error}")
        return None
