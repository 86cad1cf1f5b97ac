"""How fast is mini-KD, against the loop of the public scripts, and against what the processor can compute?

Run it with `python -m benchmarks.distillation`. Both teach the same shapes on the same proxy texts of the
packaged teacher, with the same batch size, threads and terms (hidden states of two teacher layers each), in
turns. The plain loop is stock transformers: float32, the teacher read again in each batch, texts padded to
the maximum, random weights to begin with. TextBrewer's `GeneralDistiller` joins where it can be imported.

It prints examples a second over an episode of eight candidates, the time to the same held-out loss, the
encoder's FLOPs a second as a share of what a large product reaches, and the pace of full distillation; on a
GPU also latencies by events. `--teacher bert-base` (or `xlm-r-base`) has random weights of that size, whose
students have the same shapes in proportion: their pace means something, their losses nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from benchmarks.rows import texts_of
from benchmarks.small_teachers import new_bert
from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import by_length
from kdnas_core.distillation.beginning import Start, begin
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil, judged_by
from kdnas_core.files import cache_folder
from kdnas_core.hardware import compute_device, compute_name, computing_on, devices, exclusive, moved
from kdnas_core.latency.protocol import Timing, time_in_turns
from kdnas_core.latency.runtimes import runner
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.sources import teacher_folder
from kdnas_core.models.student import student_config
from kdnas_core.models.targets import tokenised
from kdnas_core.models.teacher import Teacher, fingerprint, load_teacher
from kdnas_core.models.teacher_outputs import OnlineTargets, teacher_targets
from kdnas_core.spec import LatencySpec, ObjectiveSpec, ProxySpec

EPISODE = (
    Architecture(1, 384, 768, 12),
    Architecture(2, 192, 384, 6),
    Architecture(2, 384, 384, 12),
    Architecture(3, 192, 768, 12),
    Architecture(3, 288, 384, 9),
    Architecture(4, 192, 384, 6),
    Architecture(4, 96, 768, 3),
    Architecture(6, 192, 384, 6),
)
RACER = Architecture(3, 192, 768, 12)  # of the packaged teacher, as those of the episode
PROXY = ProxySpec(sentences=4_000, held_out=400, sequence_length=64, steps=200, batch_size=32)
OBJECTIVE = ObjectiveSpec(use="vectors", recipe="kdnas", yardstick="layers")
ROUNDS, TIMED = 5, 12  # TIMED steps in each round, of which the first is not counted
LOOK_EVERY = 50  # steps of the plain loop between evaluations, which its clock leaves out
PRODUCT = 2_048
LARGE_PRODUCT = 8_192  # on a GPU, which a smaller one does not fill
RANDOM = {  # BERT's and XLM-R's base, by the words that they know
    "bert-base": (Architecture(12, 768, 3072, 12), 30_522),
    "xlm-r-base": (Architecture(12, 768, 3072, 12), 250_002),
}


@dataclass(frozen=True)
class Material:
    """What all share: the teacher, its texts, and its outputs, which took `outputs_s` seconds."""

    teacher: Teacher
    texts: list[str]
    data: ProxySet
    importance: Importance
    outputs_s: float

    def scaled(self, shape: Architecture) -> Architecture:
        """A shape of the packaged teacher's, in proportion to this one."""
        teacher = self.teacher.architecture
        width = max(1, teacher.hidden_size // 384)
        return Architecture(
            shape.layers * teacher.layers // 6,
            shape.hidden_size * width,
            shape.intermediate_size * width,
            shape.attention_heads,
        )

    def begin(self, shape: Architecture) -> Start:
        """A student as the product begins one."""
        profile = TeacherProfile(self.teacher.architecture, predicts_words=False, hides_words=False)
        return begin(self.teacher, shape, OBJECTIVE, profile, self.data, None, 0, self.importance)


class PlainLoop:
    """The training loop of the public scripts, in stock transformers."""

    def __init__(self, teacher: Teacher, shape: Architecture, texts: Sequence[str]) -> None:
        torch.manual_seed(0)
        self.teacher, self.tokenizer = copy.deepcopy(teacher.model), teacher.tokenizer
        self.student: PreTrainedModel = AutoModel.from_config(student_config(teacher.model.config, shape))
        self.student.train()
        for model in (self.teacher, self.student):
            nn.Module.to(model, compute_device())
        self.layers = [(), *layer_map("uniform+last", shape.layers, teacher.layers)]
        width = teacher.architecture.hidden_size
        self.projections = nn.ModuleList(
            nn.Linear(shape.hidden_size, width) for of in self.layers for _ in of
        ).to(compute_device())
        parameters = [*self.student.parameters(), *self.projections.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, lr=PROXY.learning_rate)
        self.batches = self._batches(texts)

    def _batches(self, texts: Sequence[str]) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)
        while True:
            order = torch.randperm(len(texts), generator=generator).tolist()
            for start in range(0, len(order) - PROXY.batch_size + 1, PROXY.batch_size):
                yield self.tokenizer(
                    [texts[index] for index in order[start : start + PROXY.batch_size]],
                    truncation=True,
                    padding="max_length",
                    max_length=PROXY.sequence_length,
                    return_tensors="pt",
                )

    def step(self) -> None:
        """Takes one step."""
        inputs = next(self.batches).to(compute_device())
        with torch.no_grad():
            targets = self.teacher(**inputs, output_hidden_states=True).hidden_states
        states = self.student(**inputs, output_hidden_states=True).hidden_states
        real = inputs["attention_mask"].bool()
        pairs = [(layer, of) for layer, teachers in enumerate(self.layers) for of in teachers]
        losses = [
            nn.functional.mse_loss(projection(states[layer][real]), targets[of][real])
            for projection, (layer, of) in zip(self.projections, pairs, strict=True)
        ]
        torch.stack(losses).mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def main() -> None:
    """Measures, and prints one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--limit", type=float, default=1_200, help="seconds that the plain loop races for")
    parser.add_argument("--teacher", default="packaged", help=f"a teacher, or one of {', '.join(RANDOM)}")
    parser.add_argument("--device", default="cpu", choices=devices())
    given = parser.parse_args()
    with computing_on(given.device):
        found = _measured(given.teacher, given.corpus, given.limit)
    print(json.dumps(found))


def _measured(teacher: str, corpus: str, limit: float) -> dict[str, object]:
    autocast_dtype()  # measured now, under the same lock, unless it is remembered
    found: dict[str, object] = {
        "teacher": teacher,
        "device": compute_name(),
        "threads": torch.get_num_threads(),
        "autocast": str(autocast_dtype()),
    }
    with exclusive(), tempfile.TemporaryDirectory() as folder:
        material = _material(_loaded(teacher), corpus, Path(folder))
        for measure in (_episode, _share_of_product, _full_distillation):
            found |= measure(material)
            print(json.dumps(found), flush=True)
        if teacher not in RANDOM:
            found |= _race(material, limit)
        if compute_device().type == "cuda":
            found |= _latencies(material)
    return found


def _loaded(name: str) -> Teacher:
    if name not in RANDOM:
        return load_teacher(name)
    shape, words = RANDOM[name]
    torch.manual_seed(0)
    model = new_bert(shape, words).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder("packaged"))
    return Teacher(name, model, tokenizer, shape, fingerprint(model))


def _material(teacher: Teacher, corpus: str, folder: Path) -> Material:
    held_out, texts = texts_of(corpus, PROXY, teacher)
    began = time.perf_counter()
    train, judged = (
        teacher_targets(teacher, some, PROXY.sequence_length, autocast_dtype(), folder)
        for some in (texts, held_out)
    )
    seconds = time.perf_counter() - began
    data = ProxySet.of(train, judged, teacher.model.config)
    return Material(teacher, texts, data, importance_of(teacher, texts, "mean", cache_folder()), seconds)


def _episode(material: Material) -> dict[str, object]:
    """Examples a second over an episode; ours with cuts, evaluations and the teacher's outputs."""
    ours, plain = [], []
    for shape in map(material.scaled, EPISODE):
        loop = PlainLoop(material.teacher, shape, material.texts)
        start = material.begin(shape)
        steps: dict[str, list[float]] = {"ours": [], "plain": []}
        for round_ in range(ROUNDS):
            steps["ours"].append(_step_of_ours(material, start, round_))
            steps["plain"].append(_seconds_of(loop.step))
        began = time.perf_counter()
        start = material.begin(shape)
        judged_by(start.student, start.objective, material.data, autocast_dtype())
        # a mini-KD evaluates seven times
        beside = (time.perf_counter() - began) + 6 * _seconds_of_evaluation(material, start)
        seconds = {name: statistics.median(of) for name, of in steps.items()}
        ours.append(PROXY.steps * seconds["ours"] + beside)
        plain.append(PROXY.steps * seconds["plain"])
        print(shape.key, {name: round(of, 3) for name, of in seconds.items()}, f"beside {beside:.1f} s")
    examples = PROXY.steps * PROXY.batch_size * len(EPISODE)
    whole = sum(ours) + material.outputs_s
    return {
        "plain_examples_a_second": examples / sum(plain),
        "our_examples_a_second": examples / whole,
        "episode_ratio": sum(plain) / whole,
        "teacher_outputs_s": material.outputs_s,
    }


def _seconds_of_evaluation(material: Material, start: Start) -> float:
    began = time.perf_counter()
    judged_by(start.student, start.objective, material.data, autocast_dtype())
    return time.perf_counter() - began


def _step_of_ours(material: Material, start: Start, seed: int, data: ProxySet | None = None) -> float:
    """Mean seconds of a step of the product's trainer, without the first and without evaluations."""
    moments: list[float] = []
    watcher = Watcher(lambda step: moments.append(time.perf_counter()), lambda result: None)
    proxy, data = PROXY.model_copy(update={"steps": TIMED}), data or material.data
    distil(start.student, start.objective, data, proxy, seed, autocast_dtype(), watcher, looks=1)
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def _seconds_of(step: Callable[[], None]) -> float:
    step()
    _finish()
    began = time.perf_counter()
    for _ in range(TIMED - 1):
        step()
    _finish()
    return (time.perf_counter() - began) / (TIMED - 1)


def _finish() -> None:
    """Waits for all that a GPU was given."""
    if compute_device().type == "cuda":
        torch.cuda.synchronize()


def _latencies(material: Material) -> dict[str, object]:
    """Milliseconds by events, float32, one text of 128 tokens, in turns with the teacher."""
    protocol = LatencySpec(runtime="torch-cuda")
    shapes = list(map(material.scaled, EPISODE))
    models = [material.teacher.model, *(material.begin(shape).student for shape in shapes)]
    timings = time_in_turns([runner(model, protocol) for model in models], protocol.warmup, protocol.runs)

    def median(timing: Timing) -> float:
        return round(statistics.median(timing.samples), 3)

    students = {shape.key: median(timing) for shape, timing in zip(shapes, timings[1:], strict=True)}
    clean = all(timing.clean for timing in timings)
    return {"latency_ms": {"teacher": median(timings[0]), **students}, "latencies_are_clean": clean}


def _share_of_product(material: Material) -> dict[str, object]:
    """The encoders' FLOPs a second in training, as a share of a large product's in the same dtype."""
    dtype = autocast_dtype() or torch.float32
    size = PRODUCT if compute_device().type == "cpu" else LARGE_PRODUCT
    one, other = (torch.randn(size, size, dtype=dtype, device=compute_device()) for _ in range(2))
    taken: list[float] = []
    for _ in range(2 * ROUNDS):
        _finish()
        began = time.perf_counter()
        one @ other
        _finish()
        taken.append(time.perf_counter() - began)
    product = 2 * size**3 / statistics.median(taken)
    lengths = material.data.train.lengths
    batches = by_length(lengths, PROXY.batch_size)
    longest = [int(lengths[batch].max()) for batch in batches]
    shares = {}
    for shape in map(material.scaled, EPISODE):
        # forward, and twice as much backward, padding included
        flops = statistics.mean(3 * PROXY.batch_size * shape.flops(length) for length in longest)
        start = material.begin(shape)
        taken = [_step_of_ours(material, start, round_) for round_ in range(ROUNDS)]
        shares[shape.key] = flops / statistics.median(taken) / product
    return {"product_gflops": product / 1e9, "shares_of_product": shares}


def _full_distillation(material: Material) -> dict[str, object]:
    """Seconds of a step of full distillation with the teacher in it, and of one with its outputs kept."""
    encoded = tokenised(material.teacher, material.texts, PROXY.sequence_length)
    wanted = [("hidden", layer) for layer in range(material.teacher.layers + 1)]
    online = OnlineTargets.of(
        material.teacher,
        encoded,
        material.data.train.variance,
        autocast_dtype(),
        wanted,  # type: ignore[arg-type]
    )
    numbers = material.data.vocabulary.numbers
    with_teacher = replace(material.data, full=online.renumbered(numbers))
    times: dict[str, list[float]] = {"first": [], "later": []}
    start = material.begin(material.scaled(RACER))
    for round_ in range(ROUNDS):
        with moved(material.teacher.model):
            times["first"].append(_step_of_ours(material, start, round_, with_teacher))
        times["later"].append(_step_of_ours(material, start, round_))
    first, later = (statistics.median(of) for of in times.values())
    return {
        "full_first_epoch_s_a_step": first,
        "full_later_epochs_s_a_step": later,
        "later_epochs_ratio": first / later,
        "four_students_over_one": (first + 3 * later) / first,
    }


def _race(material: Material, limit: float) -> dict[str, object]:
    """The time to the loss that our student ends with, evaluations left out, all judged in the same way."""
    began = time.perf_counter()
    start = material.begin(RACER)
    watcher = Watcher(lambda step: None, lambda result: None)
    loss = distil(
        start.student, start.objective, material.data, PROXY, 0, autocast_dtype(), watcher, looks=1
    ).loss
    ours = time.perf_counter() - began
    found: dict[str, object] = {"loss": loss, "our_seconds": ours, "teacher_outputs_s": material.outputs_s}
    for name, race in (("plain", _race_plain), ("textbrewer", _race_textbrewer)):
        runs = Racer(name, material, loss, limit)
        try:
            race(runs)
        except ImportError as error:
            found[name] = f"not run: {error}"
        else:
            found[name] = runs.result(ours)
    return found


class Racer:
    """The clock of another loop, which stops while its student is evaluated."""

    def __init__(self, name: str, material: Material, goal: float, limit: float) -> None:
        self.name, self.material, self.goal, self.limit = name, material, goal, limit
        self.loop = PlainLoop(material.teacher, RACER, material.texts)
        self.seconds, self.steps, self.loss, self.began = 0.0, 0, 1.0, time.perf_counter()

    def is_over(self) -> bool:
        """Evaluates the student after `LOOK_EVERY` more steps."""
        self.seconds += time.perf_counter() - self.began
        self.steps += LOOK_EVERY
        student = copy.deepcopy(self.loop.student)
        nn.Module.to(student, "cpu")
        objective = self.material.begin(RACER).objective
        self.loss = judged_by(student.eval(), objective, self.material.data, autocast_dtype()).loss
        print(f"{self.name}: {self.seconds:.0f} s, {self.steps} steps, {self.loss:.4f}", flush=True)
        self.began = time.perf_counter()
        return self.loss <= self.goal or self.seconds > self.limit

    def result(self, ours: float) -> dict[str, object]:
        """Where it ended; ours is sooner by `sooner`, or by more where it did not reach the goal."""
        return {
            "seconds": self.seconds,
            "steps": self.steps,
            "loss": self.loss,
            "reached": self.loss <= self.goal,
            "sooner": self.seconds / ours,
            "sooner_with_all_outputs": self.seconds / (ours + self.material.outputs_s),
        }


def _race_plain(racer: Racer) -> None:
    while True:
        for _ in range(LOOK_EVERY):
            racer.loop.step()
        if racer.is_over():
            return


class _Over(Exception):
    pass


def _race_textbrewer(racer: Racer) -> None:
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    loop, widths = racer.loop, (RACER.hidden_size, racer.material.teacher.architecture.hidden_size)
    matches = [
        {
            "layer_S": layer,
            "layer_T": of,
            "feature": "hidden",
            "loss": "hidden_mse",
            "weight": 1,
            "proj": ["linear", *widths],
        }
        for layer, teachers in enumerate(loop.layers)
        for of in teachers
    ]

    def outputs(batch: Any, model_outputs: Any) -> dict[str, Any]:
        return {"hidden": model_outputs.hidden_states, "inputs_mask": batch["attention_mask"]}

    def callback(model: Any, step: int) -> None:
        if racer.is_over():
            raise _Over

    with tempfile.TemporaryDirectory() as folder:
        distiller = GeneralDistiller(
            TrainingConfig(
                ckpt_frequency=1, ckpt_steps=LOOK_EVERY, output_dir=folder, device=compute_device()
            ),
            DistillationConfig(kd_loss_weight=0, hard_label_weight=0, intermediate_matches=matches),
            loop.teacher,
            loop.student,
            outputs,
            outputs,
        )
        optimiser = torch.optim.AdamW(loop.student.parameters(), lr=PROXY.learning_rate)
        with distiller, suppress(_Over):
            distiller.train(
                optimiser,
                loop.batches,
                num_steps=1_000_000,
                callback=callback,
                batch_postprocessor=dict,
                output_hidden_states=True,
            )


if __name__ == "__main__":
    main()
