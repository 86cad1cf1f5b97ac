"""What would a user pick instead? Students by other ways at equal latency, on the same text, in equal time.

Run it with `OMP_NUM_THREADS=1 python -m benchmarks.peers STSB --corpus FILE --minutes 10`, STSB a folder with
the local task. Ways:
- ours: the product's full distillation, as it is, of a shape of each speed-up, and of a static student;
- vectors alone: sentence-transformers' recipe for smaller models (its `MSELoss` on sentence vectors, some of
  the teacher's layers kept, batches of 64, learning rate 1e-4), and the same with our learning rate;
- distilbert and tinybert: these recipes, in this product's loop, from alternate layers and random weights;
  without what a student cannot learn by: the teacher predicts no words, and four heads are not its twelve;
- model2vec: a static model as that library makes it, without text: outputs for single words, their 256
  principal components, weights by rank. The library itself does not load beside this transformers.

Minutes are of processor time, by one thread, the teacher's included. Without training are scored: STS-B (test
split, Spearman) and the packaged retrieval (nDCG@10). A speed-up is measured as in a search.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MSELoss
from transformers import PreTrainedModel

from benchmarks.minutes import MARGIN, distil_for
from kdnas_core.architecture import Architecture, static_student
from kdnas_core.data.retrieval import Retrieval, read_retrieval
from kdnas_core.data.splits import full_texts
from kdnas_core.data.tasks import Row, read_task
from kdnas_core.data.tokens import endless
from kdnas_core.distillation.loop import Group, Loop
from kdnas_core.evaluation.retrieval import retrieval_scores
from kdnas_core.evaluation.zero_shot import similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.models.sources import teacher_folder
from kdnas_core.models.static import through_norm
from kdnas_core.models.student import new_student, read_student
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.spec import DistilSpec, LatencySpec, ObjectiveSpec, ProxySpec, RunSpec

OURS = {
    "3x": Architecture(2, 384, 1536, 12),
    "7x": Architecture(1, 384, 768, 12),
    "10x": Architecture(1, 352, 352, 4),
}
KEPT = {"3x": (1, 4), "7x": (3,), "10x": (3,)}  # of six layers, evenly; one cannot be cut further
ROWS = 64  # of a batch of sentence-transformers' recipe
SKIPPED, PACED = 5, 50  # batches by which its pace is told, at a rate of 0
THEIR_RATE = 1e-4
LENGTH = 128  # tokens
COMPONENTS, SIF = 256, 1e-4  # of Model2Vec


@dataclass(frozen=True)
class Judges:
    """What students are scored by."""

    teacher: Teacher
    pairs: Sequence[Row]
    retrieval: Retrieval
    bench: LatencyBench

    def row(self, name: str, model: PreTrainedModel, shape: Architecture, minutes: float) -> dict[str, Any]:
        """The scores of a model, in per cent, and how much faster than the teacher it is."""
        tokenizer = self.teacher.tokenizer
        row = {
            "way": name,
            "student": shape.key,
            "speedup": round(self.bench.student_latency(shape, model).speedup, 2),
            "minutes": round(minutes, 1),
            "stsb": round(100 * similarity_score(model, tokenizer, self.pairs, LENGTH), 2),
            "ndcg@10": round(100 * retrieval_scores(model, tokenizer, self.retrieval, 256)["ndcg@10"], 2),
        }
        print(row, flush=True)
        return row


def main() -> None:
    """Prints a line for each way and speed-up, then all as JSON."""
    given = _arguments()
    torch.set_num_threads(1)
    teacher = load_teacher("packaged")
    judges = Judges(
        teacher,
        read_task(str(given.stsb), cache_folder()).splits["test"],
        read_retrieval("packaged-retrieval", cache_folder(), "test"),
        LatencyBench(teacher, LatencySpec(budget_speedup=2.0)),
    )
    texts = [text.text for text in _texts(given.corpus, teacher).learnt]
    rows = [judges.row("teacher", teacher.model, teacher.architecture, 0.0)]
    for name, way in _ways(teacher, given.corpus, texts, given.minutes):
        if given.only and not any(each in name for each in given.only):
            continue
        began = time.process_time()
        model, shape = way()
        rows.append(judges.row(name, model, shape, (time.process_time() - began) / 60))
    print(json.dumps({"minutes": given.minutes, "corpus": Path(given.corpus).name, "rows": rows}))


Way = Callable[[], tuple[PreTrainedModel, Architecture]]


def _ways(teacher: Teacher, corpus: str, texts: list[str], minutes: float) -> Iterator[tuple[str, Way]]:
    spec, how = RunSpec(corpus=corpus), DistilSpec()
    yield "static, model2vec", partial(model2vec, teacher)
    yield "static, ours", partial(_distilled, spec, how, static_student(384), minutes)
    alternate = RunSpec(corpus=corpus, objective=ObjectiveSpec(recipe="distilbert"))
    random = RunSpec(corpus=corpus, objective=ObjectiveSpec(recipe="tinybert", start="random"))
    for speed, shape in OURS.items():
        yield f"{speed}, ours", partial(_distilled, spec, how, shape, minutes)
        for rate in (THEIR_RATE, how.learning_rate):
            yield (
                f"{speed}, vectors alone, {rate:g}",
                partial(vectors_alone, KEPT[speed], texts, rate, minutes),
            )
        whole = Architecture(shape.layers, 384, 1536, 12)
        yield f"{speed}, distilbert", partial(_distilled, alternate, how, whole, minutes)
        yield f"{speed}, tinybert", partial(_distilled, random, how, shape, minutes)


def _distilled(
    spec: RunSpec, how: DistilSpec, shape: Architecture, minutes: float
) -> tuple[PreTrainedModel, Architecture]:
    with tempfile.TemporaryDirectory() as folder:
        distil_for(minutes, shape, spec, how, Path(folder))
        return read_student(Path(folder)), shape


def vectors_alone(
    kept: Sequence[int], texts: Sequence[str], rate: float, minutes: float
) -> tuple[PreTrainedModel, Architecture]:
    """Keeps some layers of the teacher and trains on its sentence vectors, by sentence-transformers."""
    folder = teacher_folder("packaged")
    assert folder is not None
    teacher, student = (SentenceTransformer(str(folder), device="cpu") for _ in range(2))
    encoder: Any = student[0].auto_model
    encoder.encoder.layer = torch.nn.ModuleList(encoder.encoder.layer[layer] for layer in kept)
    encoder.config.num_hidden_layers = len(kept)
    loss = MSELoss(student)
    batches = endless([len(text) for text in texts], ROWS, seed=0)
    known: dict[int, torch.Tensor] = {}  # their recipe reads with the teacher once

    def gradients() -> float:
        indices = next(batches)
        new = [index for index in indices if index not in known]
        vectors = teacher.encode([texts[index] for index in new], show_progress_bar=False)
        known.update(zip(new, torch.from_numpy(vectors).unbind(), strict=True))
        some = [texts[index] for index in indices]
        value = loss([student.preprocess(some)], torch.stack([known[index] for index in indices]))
        value.backward()
        return value.item()

    parameters = [Group(list(student.parameters()))]
    trial = Loop(parameters, SKIPPED + PACED, 0.0)
    for step in range(1, SKIPPED + 1):
        trial.take(step, gradients)
    began = time.process_time()
    for step in range(SKIPPED + 1, SKIPPED + PACED + 1):
        trial.take(step, gradients)
    known.clear()
    steps = int(MARGIN * 60 * minutes / ((time.process_time() - began) / PACED))
    loop = Loop(parameters, steps, rate)
    for step in range(1, steps + 1):
        loop.take(step, gradients)
    return encoder.eval(), Architecture(len(kept), 384, 1536, 12)


def model2vec(teacher: Teacher) -> tuple[PreTrainedModel, Architecture]:
    """A static model as Model2Vec 0.10 makes it: its own defaults, in this product's format of one."""
    special = teacher.tokenizer.all_special_ids
    start, end = teacher.tokenizer.cls_token_id, teacher.tokenizer.sep_token_id
    parts = []
    with torch.inference_mode():
        for ids in torch.arange(teacher.model.config.vocab_size).split(256):
            texts = torch.stack([torch.full_like(ids, start), ids, torch.full_like(ids, end)], dim=1)
            states = teacher.model(input_ids=texts, attention_mask=torch.ones_like(texts)).last_hidden_state
            parts.append(states.mean(1).double())
    words = torch.cat(parts)
    # it takes special and unused tokens out of the vocabulary, whose order stands for frequency
    names = teacher.tokenizer.convert_ids_to_tokens(list(range(len(words))))
    is_word = np.array([not (name.startswith("[") and name.endswith("]")) for name in names])
    words -= words[torch.from_numpy(is_word)].mean(0)
    directions = torch.linalg.eigh(words.T @ words).eigenvectors[:, -COMPONENTS:]
    shares = 1 / (1 + np.maximum(1, is_word.cumsum()))
    weights = torch.from_numpy(SIF / (SIF + shares / shares[is_word].sum()))
    # in the first components of the student's width: cosines do not depend on the basis
    vectors = torch.zeros_like(words)
    vectors[:, :COMPONENTS] = weights[:, None] * (words @ directions)
    vectors[special] = 0.0  # it reads no special tokens
    shape = static_student(teacher.architecture.hidden_size)
    student = new_student(teacher, shape, seed=0)
    student.load_state_dict(through_norm(vectors, student.config.layer_norm_eps), strict=False)
    return student, shape


def _texts(corpus: str, teacher: Teacher) -> Any:
    how = DistilSpec()
    return full_texts(
        corpus,
        cache_folder(),
        ProxySpec(),
        how.sentences,
        how.sequence_length,
        teacher.tokenizer,
        lambda words: None,
        of_many_lengths=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stsb", type=Path)
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", help="ways whose names hold one of these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
