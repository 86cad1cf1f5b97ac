"""A store filled as a worker would fill it, for tests that show or read runs."""

from __future__ import annotations

import atexit
import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from kdnas_core.architecture import Architecture
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import LayerLoss, Score, Scored, TeacherFacts, TeacherLayerFacts
from kdnas_core.runs.store import Store, files_of, opened
from kdnas_core.search.reward import kdnas_reward, within_budget
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import DistilSpec, ObjectiveSpec, RunSpec, ScoreSpec, parse_spec_json, quick_spec

TEACHER = Architecture(6, 384, 1536, 12)
TEACHER_MS = 18.5
SIZES = {
    "layers": [2, 3, 4, 6],
    "hidden_size": [96, 192, 288, 384],
    "intermediate_size": [384, 768, 1536],
    "attention_heads": [3, 6, 12],
}
DEVICE = "node-3: AMD EPYC 9B45 (2 cores)"
STEPS = 80
FULL_STEPS = 6_000  # of a full distillation
LANGUAGES = {"ar": 1.2, "de": 0.95, "en": 0.8, "es": 0.9, "sw": 1.35, "th": 1.3, "zh": 1.1}  # of the loss


def tinybert_spec() -> RunSpec:
    """The quick search with TinyBERT's terms; its candidates have notes, and losses by language."""
    fields = {"name": "tinybert", "objective": ObjectiveSpec(recipe="tinybert")}
    return quick_spec().model_copy(update=fields)


def reading(milliseconds: float, seed: int = 0) -> LatencyReading:
    """Returns a clean reading of about this latency, with a teacher of `TEACHER_MS`."""
    noise = random.Random(seed)
    samples = sorted(milliseconds * (1 + 0.04 * abs(noise.gauss(0, 1))) for _ in range(100))
    return LatencyReading(
        p50=samples[50],
        p95=samples[95],
        samples=tuple(samples),
        teacher_p50=TEACHER_MS,
        runtime="onnxruntime",
        dtype="float32",
        threads=1,
        batch_size=1,
        sequence_length=128,
        device=DEVICE,
        repeated=0,
        clean=True,
    )


def teacher_facts() -> TeacherFacts:
    """The packaged teacher as a run would have measured it."""
    return TeacherFacts("all-MiniLM-L6-v2", TEACHER, 22_713_216, TEACHER.flops(128), reading(TEACHER_MS))


def latency_of(architecture: Architecture) -> float:
    """Returns a latency in ms that grows with the multiply-adds, as on a real processor."""
    return 0.4 + TEACHER_MS * architecture.flops(128) / TEACHER.flops(128)


def loss_of(architecture: Architecture) -> float:
    """Returns a loss that falls with depth and width."""
    depth, width = architecture.layers / TEACHER.layers, architecture.hidden_size / TEACHER.hidden_size
    wobble = random.Random(architecture.key).uniform(-0.02, 0.02)
    return 0.75 - 0.22 * depth - 0.2 * width - 0.05 * architecture.intermediate_size / 1536 + wobble


def begin_run(store: Store, spec: RunSpec | None = None) -> int:
    """Creates a run that this process works on, with a measured teacher."""
    spec = (spec or quick_spec()).filled_for(makes_vectors=True)
    run = store.create_run(spec)
    store.claim_run(Worker.this_process())
    # two layers or more, so that the few candidates of a small run are on both sides of its budget
    space = spec.space
    if not space.presets:
        space = space.model_copy(update={**SIZES, **space.model_dump(exclude_none=True)})
    filled = spec.model_copy(update={"space": space.filled_from(TEACHER)})
    store.set_teacher(run, filled, teacher_facts())
    store.set_teacher_layers(run, teacher_layer_facts())
    store.set_activity(run, "measuring latency of candidate 1")
    return run


def teacher_layer_facts() -> TeacherLayerFacts:
    """Floors that fall with width, and layers that are alike the nearer they are."""
    width, layers = TEACHER.hidden_size, range(TEACHER.layers + 1)
    floors = [[max(0.0, 0.9 - size / width) ** 2 for size in range(1, width + 1)] for _ in layers]
    return TeacherLayerFacts(floors, [[0.9 ** abs(layer - other) for other in layers] for layer in layers])


def similarity_of(architecture: Architecture) -> list[list[float]]:
    """CKA of a student whose layers are spread evenly over its teacher's."""
    step = TEACHER.layers / architecture.layers
    layers = range(architecture.layers + 1)
    return [[0.85 ** abs(layer * step - other) for other in range(TEACHER.layers + 1)] for layer in layers]


def judge(store: Store, run: int, candidate: int) -> None:
    """Judges one proposed candidate: latency, then the veto or losses and a reward."""
    spec = store.run(run).spec
    architecture = store.candidate(candidate).architecture
    latency = reading(latency_of(architecture), seed=candidate)
    facts = {
        "latency": latency.to_dict(),
        "parameters": 11_000_000 + architecture.layers * architecture.hidden_size**2 * 12,
        "flops": architecture.flops(128),
    }
    _write_config(store, run, candidate, architecture)
    if not within_budget(latency, spec.latency, latency.teacher_p50):
        store.update_candidate(candidate, state="over_budget", seconds=5.1, **facts)
        return
    loss = loss_of(architecture)
    if spec.objective.recipe == "tinybert":
        _distil_terms(store, candidate, architecture)
    else:
        _distil(store, candidate, architecture)
    reward = kdnas_reward(loss, latency.p50, latency.teacher_p50, spec.search.reward)
    store.update_candidate(
        candidate,
        state="done",
        loss=loss,
        loss_se=0.006,
        cut_from=_cut(architecture),
        similarity=similarity_of(architecture),
        reward=reward,
        seconds=14.2,
        step=STEPS,
        steps=STEPS,
        weights=1,
        **facts,
    )


def _cut(architecture: Architecture) -> list[dict[str, object]]:
    """The source of each layer: the first heads of evenly spread teacher layers."""
    layers = [
        max(1, layer * TEACHER.layers // architecture.layers) for layer in range(1, architecture.layers + 1)
    ]
    return [{"layer": layer, "heads": list(range(1, architecture.attention_heads + 1))} for layer in layers]


def add_episode(store: Store, run: int, episode: int, architectures: Sequence[Architecture]) -> list[int]:
    """Proposes an episode and returns the ids of its candidates."""
    predicted = None if episode == 1 else 0.5
    store.begin_episode(run, episode, [(architecture, predicted) for architecture in architectures])
    return [candidate.id for candidate in store.candidates(run) if candidate.episode == episode]


def fill(
    path: Path,
    *,
    episodes: int = 4,
    state: str = "finished",
    spec: RunSpec | None = None,
    students: bool = False,
) -> int:
    """Fills a store with one run of judged episodes, which ends in a state or stays "running".

    `students` adds those of `add_students`. A new store whose run is over is copied from one that is made
    once in each process.
    """
    if state == "running" or path.exists():
        run = _fill(path, episodes, state, spec)
    else:
        made, run = _made_once(episodes, state, None if spec is None else spec.to_json())
        copy_store(made, path)
    if students:
        with opened(path) as store:
            add_students(store, run)
    return run


def copy_store(made: Path, path: Path) -> None:
    """Copies a store that no process has open, with its files."""
    beside = sorted(each.name for each in made.parent.iterdir() if each.name.startswith(made.name))
    assert beside == [made.name, files_of(made).name]  # nothing is left in a log
    shutil.copy2(made, path)
    shutil.copytree(files_of(made), files_of(path))


def path_for_copies() -> Path:
    """Returns a path for a store that the tests of this process copy."""
    folder = Path(tempfile.mkdtemp(prefix="kdnas-filled-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "runs.db"


@cache
def _made_once(episodes: int, state: str, spec: str | None) -> tuple[Path, int]:
    made = path_for_copies()
    return made, _fill(made, episodes, state, None if spec is None else parse_spec_json(spec))


def _fill(path: Path, episodes: int, state: str, spec: RunSpec | None) -> int:
    with opened(path) as store:
        run = begin_run(store, spec)
        search = store.run(run).spec.search
        space = SearchSpace.from_spec(store.run(run).spec.space, TEACHER)
        drawn = space.sample(random.Random(7), episodes * search.candidates, ())
        for episode in range(1, episodes + 1):
            start = (episode - 1) * search.candidates
            for candidate in add_episode(store, run, episode, drawn[start : start + search.candidates]):
                judge(store, run, candidate)
        if state != "running":
            store.end_run(run, state)  # type: ignore[arg-type]
    return run


def add_students(store: Store, run: int) -> dict[str, int]:
    """Adds students and scorings of a run in every state that a page shows; returns their ids.

    Students: "general" (of the first candidate that was judged), "task" (made from it), "running" (a quarter
    done, served by this process), "paused", "failed". Scorings: "of_candidate" and "of_general" are
    finished, "of_task" is running and has the teacher's scores alone.
    """
    judged = [candidate.id for candidate in store.candidates(run) if candidate.state == "done"]
    first, second = judged[:2]
    general = store.create_student(first, DistilSpec(epochs=3), worker=Worker.this_process())
    _learn(store, general, first, FULL_STEPS)
    languages = {name: factor * 0.2 for name, factor in LANGUAGES.items()}
    finish = {"loss": 0.2, "languages": languages, "notes": ["Its embeddings were trained for 600 words."]}
    store.update_student(general, seconds=5_400, **finish)
    _write_weights(store.student_files(run, general))
    store.end(Job("students", general), "finished")
    how = DistilSpec(task="packaged", epochs=1)
    task = store.create_student(first, how, parent=general, worker=Worker.this_process())
    store.update_student(task, loss=0.31, step=900, steps=900, seconds=1_200)
    _write_weights(store.student_files(run, task))
    store.end(Job("students", task), "finished")
    running = store.create_student(second, DistilSpec(recipe="tinybert"), worker=Worker.this_process())
    _learn(store, running, second, FULL_STEPS // 4)
    store.update_student(running, seconds=600)
    store.set_activity(Job("students", running), "distilling on the full corpus")
    paused = store.create_student(second, DistilSpec(epochs=1), worker=Worker.this_process())
    _learn(store, paused, second, FULL_STEPS // 2)
    store.end(Job("students", paused), "paused")
    failed = store.create_student(second, DistilSpec(learning_rate=1), worker=Worker.this_process())
    store.end(Job("students", failed), "failed", "Diverged: the loss was nan at step 12.")
    return {
        "general": general,
        "task": task,
        "running": running,
        "paused": paused,
        "failed": failed,
        "of_candidate": _score(store, candidate=first, student_at=0.78),
        "of_general": _score(store, student=general, student_at=0.86),
        "of_task": _score(store, student=task, student_at=None),
    }


def _learn(store: Store, student: int, candidate: int, taken: int) -> None:
    depth = store.candidate(candidate).architecture.layers
    store.update_student(student, step=taken, steps=FULL_STEPS)
    for step in range(0, taken + 1, FULL_STEPS // 20):
        share = 0.2 + 0.8 * 0.999**step
        pairs = [(layer, max(1, layer * TEACHER.layers // depth)) for layer in range(1, depth + 1)]
        rows = [LayerLoss(step, layer, of, share * (0.8 + layer / 10)) for layer, of in pairs]
        store.add_student_losses(student, rows)


def _write_weights(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(5_000_000))


def _score(
    store: Store, *, candidate: int | None = None, student: int | None = None, student_at: float | None
) -> int:
    """Adds a scoring on three tasks, one with two metrics; without `student_at`, of the teacher alone."""
    tasks = {"packaged": ["accuracy"], "sst2": ["accuracy"], "mrpc": ["accuracy", "f1"]}
    scoring = store.create_scoring(
        ScoreSpec(tasks=list(tasks), control=True),
        candidate=candidate,
        student=student,
        worker=Worker.this_process(),
    )
    levels: list[tuple[Scored, float]] = [("teacher", 0.91)]
    if student_at is not None:
        levels += [("student", student_at), ("control", student_at - 0.15)]
    noise = random.Random(scoring)
    for subject, level in levels:
        rows = [
            Score(subject, task, metric, seed, level + noise.uniform(-0.02, 0.02), 1.5e-4)
            for task, metrics in tasks.items()
            for metric in metrics
            for seed in range(3)
        ]
        store.add_scores(scoring, rows)
    if student_at is None:
        store.update_scoring(scoring, step=30, steps=120)
        store.set_activity(Job("scorings", scoring), "student: packaged: fine-tuning, seed 1")
    else:
        store.end(Job("scorings", scoring), "finished")
    return scoring


def _distil(store: Store, candidate: int, architecture: Architecture) -> None:
    store.update_candidate(candidate, state="distilling", steps=STEPS)
    final = loss_of(architecture)
    depth = architecture.layers
    for step in range(0, STEPS + 1, 20):
        losses = []
        for layer in range(1, depth + 1):
            targets = {max(1, layer * TEACHER.layers // depth), TEACHER.layers - depth + layer}
            for target in sorted(targets):
                lasting = final * (0.7 + 0.6 * layer / depth) + 0.01 * target
                losses.append(LayerLoss(step, layer, target, lasting + (1 - lasting) * 0.93**step))
        store.add_layer_losses(candidate, losses)
        store.update_candidate(candidate, step=step)


def _distil_terms(store: Store, candidate: int, architecture: Architecture) -> None:
    """As `_distil`, by several terms; attention is skipped where the heads are not the teacher's."""
    store.update_candidate(candidate, state="distilling", steps=STEPS)
    depth, final, heads = architecture.layers, loss_of(architecture), architecture.attention_heads
    pairs = [(layer, max(1, layer * TEACHER.layers // depth)) for layer in range(1, depth + 1)]
    same_heads = heads == TEACHER.attention_heads
    terms = {
        "embedding": ([(0, 0)], 0.6),
        "hidden": (pairs, 1.0),
        "attention": (pairs if same_heads else [], 5.3),
        "prediction": ([(depth + 1, TEACHER.layers + 1)], 9.7),
    }
    for step in range(0, STEPS + 1, 20):
        rows = [
            LayerLoss(step, layer, target, size * (final + (1 - final) * 0.95**step) * (1 + layer / 20), term)
            for term, (mapped, size) in terms.items()
            for layer, target in mapped
        ]
        store.add_layer_losses(candidate, rows)
        store.update_candidate(candidate, step=step)
    skipped = f"Attention loss skipped: {heads} heads of the student against 12 of the teacher."
    languages = {name: factor * final for name, factor in LANGUAGES.items()}
    store.update_candidate(candidate, notes=[] if same_heads else [skipped], languages=languages)


def _write_config(store: Store, run: int, candidate: int, architecture: Architecture) -> None:
    folder = store.files(run, candidate)
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"model_type": "bert", "num_hidden_layers": architecture.layers, **architecture.to_dict()}
    (folder / "config.json").write_text(json.dumps(fields, indent=2))
