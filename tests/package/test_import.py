"""An import restores an export; other files are refused, and nothing is left of them."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.models.student import student_config
from kdnas_core.package import opened as package_module
from kdnas_core.package.import_ import Imported, check_shape, import_student
from kdnas_core.package.manifest import look
from kdnas_core.runs.names import source_named, weights_of
from kdnas_core.runs.store import Store, files_of, opened
from kdnas_core.spec import DistilSpec, RunSpec, quick_spec
from kdnas_core.students.task_file import TASK_FILE, fingerprint_of_task, write_task
from tests.exported import SHAPE, sha256, write_export, write_json, write_sums, zipped
from tests.filled_store import DEVICE, reading, teacher_facts
from tests.sentences import is_one_sentence
from tests.tiny_families import CONFIGS
from tests.tiny_runs import files_in

FULL = DistilSpec(epochs=2.0, seed=9)
KEPT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def student(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory, machine: None) -> Path:
    """The folder of an exported student of a full distillation; no test may change it."""
    return write_export(tmp_path_factory.mktemp("exported") / "s3", tiny_teacher, student=FULL)


@pytest.fixture(scope="module")
def candidate(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory, machine: None) -> Path:
    """The folder of an exported candidate; no test may change it."""
    return write_export(tmp_path_factory.mktemp("exported") / "12", tiny_teacher)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder of the store, empty."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def db(work: Path) -> Path:
    return work / "runs.db"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the process that loads the weights, for tests of other steps."""
    monkeypatch.setattr("kdnas_core.package.import_.check_weights", lambda *_: None)


def taken(db: Path, source: Path | bytes) -> Imported:
    given = io.BytesIO(source) if isinstance(source, bytes) else source
    return import_student(db, given, str(source) if isinstance(source, Path) else "/s3.zip", lambda _: None)


def refused(db: Path, source: Path | bytes) -> str:
    """Returns the refusal, and checks that the store's folder is unchanged."""
    before = files_in(db.parent)
    with pytest.raises(BadInput) as error:
        taken(db, source)
    assert is_one_sentence(str(error.value)), str(error.value)
    assert files_in(db.parent) == before
    assert not files_of(db).exists()
    return str(error.value)


def altered(folder: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Copies an export with another kdnas.json and matching checksums."""
    shutil.copytree(folder, target)
    fields = json.loads((target / "kdnas.json").read_text())
    change(fields)
    write_json(target / "kdnas.json", fields)
    write_sums(target)
    return target


# --- what comes back --------------------------------------------------------------------------------------


def test_a_student_comes_back_from_its_zip_byte_for_byte_and_as_it_was_known(student: Path, db: Path) -> None:
    done = taken(db, zipped(student))
    with opened(db) as store:
        assert (done.run, done.candidate, done.student) == (1, 1, 1)
        folder = weights_of(store, source_named(store, "s1"))
        run, row, made = store.run(1), store.candidate(1), store.student(1)
    assert files_in(folder) == {name: (student / name).read_bytes() for name in files_in(folder)}
    assert set(files_in(folder)) >= KEPT
    assert not {"README.md", "kdnas.json", "run.json", "SHA256SUMS"} & set(files_in(folder))
    assert (done.path, done.sha256) == (folder.resolve(), sha256(student / "model.safetensors"))
    assert (run.name, run.state, run.spec.seed, run.teacher) == (
        "at home (imported)",
        "finished",
        5,
        teacher_facts(),
    )
    assert (row.architecture, row.state, row.weights) == (SHAPE, "done", False)
    assert (row.latency, row.loss, row.reward, row.notes) == (reading(2.5), 0.25, 0.75, ("A note.",))
    assert row.latency is not None
    assert row.latency.device == DEVICE, "it was measured there, not here"
    assert (made.spec, made.state, made.loss, made.step) == (FULL, "finished", 0.125, 4)
    assert (made.notes, made.languages, made.seconds) == (("One.",), {"de": 0.5}, 9.5)
    cut = (LayerSource(1, (1, 2)), LayerSource(2, (1, 2)))
    assert (row.loss_se, row.cut_from) == (made.loss_se, made.cut_from) == (0.0625, cut)
    assert (run.spec.objective.use, run.spec.objective.yardstick) == ("fine_tuning", "layers")


def as_of_version_4(fields: dict[str, Any]) -> None:
    """Removes the fields that an export of the earlier version does not have."""
    for name in ("use", "yardstick"):
        del fields["spec"]["objective"][name]
    del fields["spec"]["proxy"]["pairs"]
    for part in filter(None, (fields["candidate"], fields["student"])):
        del part["loss_se"], part["cut_from"]
    if fields["student"] is not None:
        del fields["student"]["spec"]["pairs"]


def test_a_student_of_an_older_export_comes_back_as_it_was_judged(
    student: Path, db: Path, tmp_path: Path, unloaded: None
) -> None:
    taken(db, altered(student, tmp_path / "older", as_of_version_4))
    with opened(db) as store:
        run, row, made = store.run(1), store.candidate(1), store.student(1)
    assert (run.spec.objective.yardstick, run.spec.objective.recipe) == ("layers", "kdnas")
    assert (row.loss, row.loss_se, row.cut_from) == (0.25, None, ())
    assert (made.loss, made.loss_se, made.cut_from, made.spec) == (0.125, None, (), FULL)


def test_its_scores_come_back_as_a_finished_scoring(student: Path, db: Path, unloaded: None) -> None:
    taken(db, student)
    with opened(db, read_only=True) as store:
        (scoring,) = store.scorings(student=1)
        assert (scoring.state, scoring.spec.tasks, scoring.spec.seeds) == ("finished", ["packaged"], 2)
        found = [(score.subject, score.seed, score.value, score.rate) for score in store.scores(scoring.id)]
        assert found == [("teacher", 0, 0.9, 1e-3), ("student", 0, 0.8, 1e-3), ("student", 1, 0.7, None)]
        assert not store.is_waiting()


@pytest.mark.slow
def test_a_candidate_comes_back_from_its_folder_with_weights_of_its_own(candidate: Path, db: Path) -> None:
    done = taken(db, candidate)
    assert done.student is None
    with opened(db, read_only=True) as store:
        assert weights_of(store, source_named(store, "1")) == store.files(1, 1)
        assert store.students() == []
        assert store.candidate(1).scores["packaged (proxy)"] == 0.5
    weights = (candidate / "model.safetensors").read_bytes()
    assert (done.path / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_student_for_a_task_comes_back_with_its_head(tiny_teacher: Path, db: Path, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "s4", tiny_teacher, student=DistilSpec(task="packaged"))
    write_task(folder, "packaged", "0123")
    write_sums(folder)
    imported = taken(db, folder)
    with opened(db, read_only=True) as store:
        assert store.student(1).spec.task == "packaged"
    assert fingerprint_of_task(imported.path) == "0123"


@pytest.mark.parametrize("content", ['{"task": 7', '{"fingerprint": 7}', "[]"])
def test_a_file_that_names_no_task_is_left_out(
    tiny_teacher: Path, db: Path, tmp_path: Path, unloaded: None, content: str
) -> None:
    folder = write_export(tmp_path / "s4", tiny_teacher, student=DistilSpec(task="packaged"))
    (folder / TASK_FILE).write_text(content)
    write_sums(folder)
    assert not (taken(db, folder).path / TASK_FILE).exists()


def test_a_student_that_is_for_no_task_comes_back_without_one(
    tiny_teacher: Path, db: Path, tmp_path: Path, unloaded: None
) -> None:
    folder = write_export(tmp_path / "s3", tiny_teacher, student=FULL)
    write_task(folder, "packaged", "0123")
    write_sums(folder)
    assert not (taken(db, folder).path / TASK_FILE).exists()


def test_importing_again_makes_another_run(candidate: Path, db: Path, unloaded: None) -> None:
    first, second = taken(db, candidate), taken(db, candidate)
    assert (first.run, second.run) == (1, 2)
    assert first.sha256 == second.sha256
    assert [path.name for path in db.parent.iterdir() if path.name.startswith(".")] == []


def test_a_long_name_is_cut_so_that_the_word_imported_stands_behind_it(
    tiny_teacher: Path, db: Path, tmp_path: Path, unloaded: None
) -> None:
    spec = RunSpec(name="é" * 100)
    taken(db, write_export(tmp_path / "long", tiny_teacher, spec=spec))
    with opened(db, read_only=True) as store:
        name = store.run(1).name
    assert (len(name), name) == (100, f"{'é' * 89} (imported)")


def test_a_student_of_a_vetoed_candidate_comes_back_with_a_candidate_that_was_vetoed(
    student: Path, db: Path, tmp_path: Path, unloaded: None
) -> None:
    taken(db, altered(student, tmp_path / "vetoed", lambda fields: fields["candidate"].update(loss=None)))
    with opened(db, read_only=True) as store:
        assert store.candidate(1).state == "over_budget"


def test_a_student_of_a_pruned_candidate_comes_back_with_a_candidate_that_was_pruned(
    student: Path, db: Path, tmp_path: Path, unloaded: None
) -> None:
    fields = {"rung": 33, "steps": 200, "estimated_ms": 7.5, "latency": None, "loss": 0.8}
    taken(db, altered(student, tmp_path / "pruned", lambda known: known["candidate"].update(fields)))
    with opened(db, read_only=True) as store:
        row = store.candidate(1)
    assert (row.state, row.rung, row.steps, row.estimated_ms) == ("pruned", 33, 200, 7.5)
    assert (row.latency, row.loss) == (None, 0.8)


def test_an_archive_that_was_packed_anew_on_a_desktop_is_taken(
    candidate: Path, db: Path, unloaded: None
) -> None:
    packed = io.BytesIO(zipped(candidate, "my student/"))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("__MACOSX/my student/._config.json", b"junk")
        archive.writestr("my student/onnx/model.onnx", b"not read")
    assert taken(db, packed.getvalue()).run == 1


# --- what a stranger may try ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../config.json", "/etc/config.json", "s3/../../x", "C:/x", "s3\\config.json", "s3//x", "./x", "x\0y"],
)
def test_a_zip_with_a_name_that_leads_elsewhere_is_refused(student: Path, db: Path, name: str) -> None:
    packed = io.BytesIO(zipped(student))
    with zipfile.ZipFile(packed, "a") as archive:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = entry.orig_filename = name
        archive.writestr(entry, b"{}")
    assert "which no export has" in refused(db, packed.getvalue())


def test_a_zip_with_a_link_is_refused(student: Path, db: Path) -> None:
    packed = io.BytesIO(zipped(student))
    with zipfile.ZipFile(packed, "a") as archive:
        entry = zipfile.ZipInfo("student-s3/vocab.json")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, b"/etc/passwd")
    assert "has a link" in refused(db, packed.getvalue())


@pytest.mark.parametrize("name", ["student-s3/config.json", "student-s3/CONFIG.json"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_name_twice_is_refused(student: Path, db: Path, name: str) -> None:
    packed = io.BytesIO(zipped(student))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, b"{}")
    assert "two files called" in refused(db, packed.getvalue())


def test_a_zip_of_very_many_files_is_refused(student: Path, db: Path) -> None:
    packed = io.BytesIO(zipped(student))
    with zipfile.ZipFile(packed, "a") as archive:
        for number in range(1_001):
            archive.writestr(f"{number}", b"")
    assert "files" in refused(db, packed.getvalue())


def test_a_file_that_swells_is_refused_by_what_is_read_of_it_not_by_its_header(
    student: Path, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_module, "MOST_TEXT_BYTES", 300_000)
    bomb = tmp_path / "bomb"
    shutil.copytree(student, bomb)
    (bomb / "tokenizer.json").write_bytes(bytes(3_000_000))
    write_sums(bomb)
    packed = zipped(bomb)
    assert len(packed) < 300_000
    honest = zipfile.ZipFile(io.BytesIO(packed)).getinfo("student-s3/tokenizer.json")
    size = honest.file_size.to_bytes(4, "little")
    assert packed.count(size) >= 2
    assert "too large" in refused(db, packed)
    # a header with too small a size: the reader stops there, and the checksum differs
    assert refused(db, packed.replace(size, (1_000).to_bytes(4, "little")))


def test_weights_in_a_pickle_are_not_read(candidate: Path, db: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(candidate, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    write_sums(pickled)
    assert "has no model.safetensors" in refused(db, pickled)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json", "kdnas.json"])
def test_a_file_that_was_changed_is_told_by_its_checksum(
    student: Path, db: Path, tmp_path: Path, name: str
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(student, changed)
    whole = (changed / name).read_bytes()
    bettered = whole.replace(b'"loss": 0.25', b'"loss": 0.15')
    (changed / name).write_bytes(bettered if name == "kdnas.json" else whole[:-1] + b" ")
    assert f"{name} in {changed} is not the one that was exported" in refused(db, changed)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "SHA256SUMS"])
def test_an_export_that_is_not_whole_is_refused(student: Path, db: Path, tmp_path: Path, name: str) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(student, partial)
    (partial / name).unlink()
    assert f"has no {name}" in refused(db, partial)


def test_a_folder_with_a_link_to_another_file_is_refused(student: Path, db: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    shutil.copytree(student, linked)
    (linked / "vocab.txt").symlink_to("/etc/passwd")
    assert "is a link" in refused(db, linked)


def test_a_model_of_somebody_else_is_refused_with_what_is_needed(tiny_teacher: Path, db: Path) -> None:
    assert "has no kdnas.json" in refused(db, tiny_teacher)
    assert "has no kdnas.json" in refused(db, zipped(tiny_teacher))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_zip_is_refused(db: Path, content: bytes) -> None:
    assert "no zip that can be read" in refused(db, content)


@pytest.mark.parametrize("name", ["missing.zip", "x" * 5_000, "a\0b"], ids=["missing", "long", "nul"])
def test_a_path_that_leads_nowhere_is_refused(db: Path, tmp_path: Path, name: str) -> None:
    assert refused(db, tmp_path / name)


def _newer(fields: dict[str, Any]) -> None:
    fields["format"] = 2
    fields["novelty"] = 1


def _with_another_shape(fields: dict[str, Any]) -> None:
    fields["architecture"]["layers"] = 3


def _with_more_parameters(fields: dict[str, Any]) -> None:
    fields["candidate"]["parameters"] += 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_newer, "newer version of KD-NAS Studio, in format 2"),
        (lambda fields: fields.update(novelty=1), "novelty"),
        (lambda fields: fields.pop("architecture"), "architecture"),
        (lambda fields: fields["spec"].update(seed=-1), "spec.seed"),
        (lambda fields: fields["spec"].update(name="x" * 101), "spec.name"),
        (lambda fields: fields["architecture"].update(attention_heads=5), "do not divide"),
        (lambda fields: fields["architecture"].update(layers=10**9), "out of bounds"),
        (lambda fields: fields["candidate"].update(parameters=2**70), "candidate.parameters"),
        (lambda fields: fields["candidate"].update(loss=float("nan")), "candidate.loss"),
        (lambda fields: fields["candidate"]["latency"].update(p50=0), "positive"),
        (lambda fields: fields["candidate"]["latency"].update(samples=[]), "at least one run"),
        (lambda fields: fields["candidate"]["latency"].update(device="x" * 1_000), "too long"),
        (lambda fields: fields["candidate"]["latency"].update(device="![x](//a.b/c)"), "signs that no name"),
        (lambda fields: fields["candidate"].update(languages={"<a>": 1.0}), "candidate.languages"),
        (lambda fields: fields["architecture"].update(hidden_act="**x**"), "signs that no name"),
        (lambda fields: fields["teacher"].update(parameters=-1), "out of bounds"),
        (lambda fields: fields["student"]["spec"].update(epochs=-1), "student.spec.epochs"),
        (lambda fields: fields["scores"][0].update(seed=1_000), "of no seed"),
        (lambda fields: fields["scores"][0].update(subject="me"), "scores.0.subject"),
        (lambda fields: fields.update(student=None), "candidate or of a student"),
        (_with_another_shape, "another architecture"),
        pytest.param(_with_more_parameters, "not those of the model", marks=pytest.mark.slow),  # a child
    ],
)
def test_a_kdnas_json_that_cannot_be_is_refused_with_its_field(
    student: Path, db: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    assert told in refused(db, altered(student, tmp_path / "altered", change))


@pytest.mark.parametrize("written", [b"[]", b"1", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": true}'])
def test_a_kdnas_json_that_is_no_json_of_ours_is_refused(
    student: Path, db: Path, tmp_path: Path, written: bytes
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(student, broken)
    (broken / "kdnas.json").write_bytes(written)
    write_sums(broken)
    refused(db, broken)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"auto_map": {"AutoModel": "mine.Model"}}, "auto_map"),
        ({"quantization_config": {}}, "quantization_config"),
        ({"attn_implementation": "somebody/kernels"}, "attn_implementation"),
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"model_type": None}, "of no student"),
        ({"is_decoder": True}, "of no student"),
        ({"hidden_size": 24}, "another architecture"),
        ({"hidden_size": "wide"}, "of no student"),
        pytest.param({"vocab_size": 10**12}, "do not fit its config", marks=pytest.mark.slow),  # a child
    ],
)
def test_a_config_that_is_of_no_student_of_ours_is_refused(
    student: Path, db: Path, tmp_path: Path, fields: dict[str, Any], told: str
) -> None:
    strange = tmp_path / "strange"
    shutil.copytree(student, strange)
    config = json.loads((strange / "config.json").read_text())
    write_json(strange / "config.json", {**config, **fields})
    write_sums(strange)
    assert told in refused(db, strange)


def _not_a_number(tensors: dict[str, Any]) -> None:
    tensors["embeddings.word_embeddings.weight"][:] = float("nan")


def _swap_a_tensor(tensors: dict[str, Any]) -> None:
    tensors["a.projection"] = tensors.pop("embeddings.LayerNorm.bias")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_swap_a_tensor, "see 'a.projection', 'embeddings.LayerNorm.bias'"),
        pytest.param(_not_a_number, "no numbers", marks=pytest.mark.slow),
    ],
)
def test_weights_of_another_model_are_refused(
    student: Path, db: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(student, other)
    tensors = load_file(other / "model.safetensors")
    change(tensors)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    write_sums(other)
    assert told in refused(db, other)


def test_weights_that_are_none_are_refused(student: Path, db: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(student, other)
    (other / "model.safetensors").write_bytes(b"\xff" * 100)
    write_sums(other)
    assert "does not load" in refused(db, other)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(2, 16, 32, 2),
        Architecture(2, 16, 32, 2, embedding_size=8),
        Architecture(2, 16, 32, 2, embedding_size=16),
        Architecture(2, 32, 32, 2, "relu", 8, 16, 2, True),
    ],
    ids=lambda architecture: str(architecture.key),
)
def test_every_student_that_the_product_makes_has_a_config_that_is_known_again(
    kind: str, architecture: Architecture, tmp_path: Path
) -> None:
    student_config(CONFIGS[kind](vocab_size=50, pad_token_id=0), architecture).save_pretrained(tmp_path)
    check_shape(tmp_path, architecture, "it")
    with pytest.raises(BadInput, match="another architecture"):
        check_shape(tmp_path, replace(architecture, layers=3), "it")


# --- all or nothing ---------------------------------------------------------------------------------------


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(
    student: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refused(db, student)
    assert not db.exists()


def test_rows_whose_weights_could_not_be_moved_are_taken_back(
    student: Path, db: Path, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(BadInput, match="No space left"):
        patch.setattr(Path, "replace", full)
        taken(db, student)
    assert nothing_in(db)


def test_scores_that_could_not_be_written_take_their_run_with_them(
    student: Path, db: Path, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(BadInput, match="No space left"):
        patch.setattr(Store, "add_scores", full)
        taken(db, student)
    assert nothing_in(db)


def nothing_in(db: Path) -> bool:
    with opened(db, read_only=True) as store:
        rows = [*store.runs(), *store.students(), *store.scorings()]
    left = [path for path in db.parent.rglob("*") if path.name.endswith((".safetensors", ".json"))]
    return rows == [] and left == []


def test_what_a_killed_import_has_left_is_cleared_by_the_next(
    candidate: Path, db: Path, unloaded: None
) -> None:
    left = db.parent / f".{db.name}.import-abc"
    left.mkdir()
    (left / ".kdnas-lock").touch()
    assert taken(db, candidate).run == 1
    assert not left.exists()


def test_files_of_a_store_that_was_removed_by_hand_do_not_mix_with_an_import(
    candidate: Path, db: Path, unloaded: None
) -> None:
    old = files_of(db) / "1" / "1"
    old.mkdir(parents=True)
    (old / "old.json").write_text("{}")
    assert "old.json" not in files_in(taken(db, candidate).path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_refused(candidate: Path, db: Path) -> None:
    db.parent.chmod(0o500)
    try:
        assert "Permission denied" in refused(db, candidate)
    finally:
        db.parent.chmod(0o700)


def test_a_store_of_another_program_is_refused_before_anything_is_read(db: Path, candidate: Path) -> None:
    db.write_bytes(b"something else")
    assert "not a database of runs" in refused(db, candidate)


# --- what is dropped on the page --------------------------------------------------------------------------


def test_a_search_reads_back_from_its_json_and_from_a_zip_that_holds_nothing_else() -> None:
    spec = quick_spec(seed=3)
    written = spec.to_json().encode()
    assert look(io.BytesIO(written), "run.json").spec == spec
    assert look(io.BytesIO(b"\xef\xbb\xbf" + written), "Run.JSON").spec == spec
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("run.json", written)
    found = look(packed, "it.zip")
    assert (found.spec, found.manifest) == (spec, None)


def test_an_exported_student_shows_what_it_is_before_anything_is_unpacked(student: Path) -> None:
    found = look(io.BytesIO(zipped(student)), "s3.zip")
    assert found.manifest is not None
    assert (found.manifest.architecture, found.spec.name) == (SHAPE, "at home")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"layers": 3}', b"\xff", b'{"seed": "x"}'])
def test_a_json_that_is_no_search_is_refused(content: bytes) -> None:
    with pytest.raises(BadInput, match=r"^config\.json is not"):
        look(io.BytesIO(content), "config.json")


def test_two_exports_in_one_zip_are_refused(student: Path) -> None:
    packed = io.BytesIO(zipped(student, "a/"))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("b/kdnas.json", b"{}")
    with pytest.raises(BadInput, match="one at a time"):
        look(packed, "both.zip")
