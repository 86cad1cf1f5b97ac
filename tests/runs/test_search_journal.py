from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from kdnas_core.architecture import Architecture, LayerSource, static_student
from kdnas_core.data.tasks import PROXY
from kdnas_core.distillation.loop import Diverged
from kdnas_core.resampling import packed
from kdnas_core.runs import search_journal as module
from kdnas_core.runs.candidate_journal import CandidateJournal
from kdnas_core.runs.picks import Pick
from kdnas_core.runs.records import Candidate, LayerLoss
from kdnas_core.runs.search_journal import StoreJournal
from kdnas_core.runs.store import Store, opened
from kdnas_core.runs.worker import EndRequested
from kdnas_core.search.candidate import Costs, Judgement, KnownPeers, Listener
from kdnas_core.search.judge import Judge
from kdnas_core.search.loop import Outcome, Proposal, search
from kdnas_core.search.reward import loss_of
from kdnas_core.search.rungs import Cost, Peer
from kdnas_core.spec import RewardSpec, RunSpec, ScoreSpec, SearchSpec
from tests.filled_store import add_episode, begin_run, reading

A, B, C = (Architecture(layers, 192, 768, 12) for layers in (2, 3, 4))

Act = Callable[[Architecture, Path, Listener], Judgement]


class ActingJudge:
    """Judges at once, with a given action for each architecture."""

    def __init__(self, spec: RunSpec, acts: dict[Architecture, Act]) -> None:
        self.spec, self.slots = spec, 1
        self.acts = acts
        self.judged: list[Architecture] = []
        self.peers: list[list[Peer]] = []  # that each was judged beside
        self.compared: list[Architecture] = []

    def judge(
        self, architecture: Architecture, folder: Path, listener: Listener, peers: KnownPeers
    ) -> Judgement:
        self.judged.append(architecture)
        known = peers()
        assert known is not None, "those before it are judged"
        self.peers.append(list(known))
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        return self.acts[architecture](architecture, folder, listener)

    def similarity(
        self, architecture: Architecture, folder: Path, waiting: Callable[[], None]
    ) -> list[list[float]]:
        self.compared.append(architecture)
        if architecture == B:
            raise RuntimeError("not enough memory")
        return [[1.0, 0.5], [0.25, 0.75]]


def done(loss: float, milliseconds: float) -> Act:
    def act(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        listener.costs(Costs(1_000, 2_000, reading(milliseconds)))
        for step in (1, 2):
            listener.step(step)
            listener.held_out(step, {"hidden": {(1, 2): loss + 1 / step, (1, 3): loss}})
        for name in ("model.safetensors", "tokenizer.json"):
            (folder / name).write_text(architecture.key)
        (folder / "more").mkdir()
        return Judgement("done", loss, 1 - loss)

    return act


def over_budget(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
    listener.costs(Costs(1_000, 2_000, reading(99.0)))
    return Judgement("over_budget", None, None)


def far_over_budget(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
    return Judgement("over_budget", None, None, estimated_ms=123.5)


def raises(error: BaseException) -> Act:
    def act(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        listener.costs(Costs(1_000, 2_000, reading(1.0)))
        raise error

    return act


class Scripted:
    """A controller that proposes given architectures and records the outcomes."""

    def __init__(self, *episodes: list[Architecture]) -> None:
        self.episodes = episodes
        self.told: list[Outcome] = []

    def ask(self, episode: int, count: int) -> list[Proposal]:
        return [Proposal(architecture) for architecture in self.episodes[episode - 1]]

    def tell(self, outcomes: object) -> None:
        self.told.extend(cast(list[Outcome], outcomes))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "runs.db") as store:
        yield store


@pytest.fixture
def run(store: Store) -> int:
    return begin_run(store, RunSpec(search=SearchSpec(keep_weights="all")))


def journal_of(
    store: Store,
    run: int,
    acts: dict[Architecture, Act],
    check: Callable[[], None] = lambda: None,
    told: Callable[[Candidate], None] = lambda candidate: None,
) -> tuple[StoreJournal, ActingJudge]:
    judge = ActingJudge(store.run(run).spec, acts)
    candidates = CandidateJournal(store, run, cast(Judge, judge), check)
    return StoreJournal(store, run, judge.spec, candidates.judged, told), judge


def states(store: Store, run: int) -> list[str]:
    return [candidate.state for candidate in store.candidates(run)]


def test_what_a_judgement_finds_is_written(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: done(0.3, 2.0)})
    search(Scripted([A]), journal, 1, 1)
    (candidate,) = store.candidates(run)
    assert (candidate.state, candidate.loss, candidate.reward) == ("done", 0.3, 0.7)
    assert (candidate.parameters, candidate.flops, candidate.latency) == (1_000, 2_000, reading(2.0))
    assert candidate.weights
    assert candidate.seconds > 0
    expected = [
        LayerLoss(1, 1, 2, 1.3),
        LayerLoss(1, 1, 3, 0.3),
        LayerLoss(2, 1, 2, 0.8),
        LayerLoss(2, 1, 3, 0.3),
    ]
    assert store.layer_losses(candidate.id) == expected


def test_the_layers_of_what_was_distilled_are_compared_and_a_failure_of_that_fails_no_candidate(
    store: Store, run: int
) -> None:
    journal, judge = journal_of(store, run, {A: done(0.3, 2.0), B: done(0.2, 3.0), C: over_budget})
    search(Scripted([A, B, C]), journal, 1, 3)
    assert judge.compared == [A, B]
    assert states(store, run) == ["done", "done", "over_budget"]
    ids = [candidate.id for candidate in store.candidates(run)]
    assert [store.similarity(candidate) for candidate in ids] == [[[1.0, 0.5], [0.25, 0.75]], [], []]


def several_terms(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
    listener.costs(Costs(1_000, 2_000, reading(2.0)))
    listener.noted(["The attention loss is left out: 2 heads.", "The prediction loss is left out: no head."])
    listener.held_out(0, {"hidden": {(1, 2): 0.9}, "embedding": {(0, 0): 0.5}, "masked_lm": {(3, 5): 7.0}})
    listener.held_out(2, {"hidden": {(1, 2): 0.8}, "embedding": {(0, 0): 0.4}, "masked_lm": {(3, 5): 6.0}})
    return Judgement("done", 0.8, 0.2, {"en": 0.7, "sw": 0.9}, {"packaged (proxy)": 0.6})


def of_the_yardstick(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
    listener.costs(Costs(1_000, 2_000, reading(2.0)))
    return Judgement(
        "done",
        0.8,
        0.2,
        loss_se=0.01,
        resampled=(0.19, 0.21),
        cut_from=(LayerSource(3, (1, 4)), LayerSource(6, (2,))),
    )


def test_the_standard_error_and_what_it_was_cut_from_are_written(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: of_the_yardstick, B: over_budget, C: several_terms})
    search(Scripted([A, B, C]), journal, 1, 3)
    assert [row.resampled for row in store.candidates(run)] == [packed((0.19, 0.21)), b"", b""]
    told = [(row.loss_se, row.cut_from) for row in store.candidates(run)]
    assert told == [(0.01, (LayerSource(3, (1, 4)), LayerSource(6, (2,)))), (None, ()), (None, ())]


def test_the_weights_of_a_pick_are_kept_with_those_of_the_frontier(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_run(store, RunSpec(search=SearchSpec(keep_weights="frontier")))
    journal, _ = journal_of(store, run, {A: of_the_yardstick, B: of_the_yardstick, C: of_the_yardstick})
    monkeypatch.setattr(module, "frontier", lambda points: [0])
    monkeypatch.setattr(module, "picks", lambda run, rows: [Pick(run.spec.latency, rows[-1], None)])
    search(Scripted([A, B, C]), journal, 1, 3)
    assert [row.weights for row in store.candidates(run)] == [True, False, True]


def test_every_term_with_its_layers_is_written(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: several_terms})
    search(Scripted([A]), journal, 1, 1)
    (candidate,) = store.candidates(run)
    assert store.layer_losses(candidate.id) == [
        LayerLoss(0, 0, 0, 0.5, "embedding"),
        LayerLoss(0, 1, 2, 0.9, "hidden"),
        LayerLoss(0, 3, 5, 7.0, "masked_lm"),
        LayerLoss(2, 0, 0, 0.4, "embedding"),
        LayerLoss(2, 1, 2, 0.8, "hidden"),
        LayerLoss(2, 3, 5, 6.0, "masked_lm"),
    ]


def test_notes_losses_of_languages_and_scores_are_written(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: several_terms, B: done(0.3, 2.0)})
    search(Scripted([A, B]), journal, 1, 2)
    first, second = store.candidates(run)
    assert first.notes == (
        "The attention loss is left out: 2 heads.",
        "The prediction loss is left out: no head.",
    )
    assert first.languages == {"en": 0.7, "sw": 0.9}
    assert (first.scores, second.scores) == ({"packaged (proxy)": 0.6}, {})
    assert (second.notes, second.languages) == ((), {})


def test_notes_are_there_while_the_candidate_still_learns(store: Store, run: int) -> None:
    def act(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        listener.costs(Costs(1_000, 2_000, reading(2.0)))
        listener.noted(["The attention loss is left out: 2 heads."])
        seen.extend(store.candidates(run)[0].notes)
        raise EndRequested("paused")

    seen: list[str] = []
    journal, _ = journal_of(store, run, {A: act})
    with pytest.raises(EndRequested):
        search(Scripted([A]), journal, 1, 1)
    assert seen == ["The attention loss is left out: 2 heads."]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("not enough memory: you tried to allocate 9 GB"), "not enough memory"),
        (Diverged("the loss was nan at step 3"), "the loss was nan at step 3"),
        (ValueError("a shape that does not fit"), "a shape that does not fit"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_candidate_that_cannot_be_judged_has_failed_and_the_search_goes_on(
    store: Store, run: int, error: Exception, reason: str
) -> None:
    journal, judge = journal_of(store, run, {A: done(0.3, 2.0), B: raises(error), C: done(0.2, 3.0)})
    controller = Scripted([A, B], [C])
    search(controller, journal, 2, 2)
    assert states(store, run) == ["done", "failed", "done"]
    failed = store.candidates(run)[1]
    assert failed.error is not None
    assert reason in failed.error
    assert failed.loss is failed.reward is None
    assert not failed.weights
    assert judge.judged == [A, B, C]
    assert controller.told[1] == Outcome(B, None, None, controller.told[1].ms)


@pytest.mark.parametrize("error", [EndRequested("paused"), KeyboardInterrupt()])
def test_a_request_or_an_interrupt_ends_the_search_and_is_no_failure_of_the_candidate(
    store: Store, run: int, error: BaseException
) -> None:
    journal, judge = journal_of(store, run, {A: done(0.3, 2.0), B: raises(error), C: done(0.2, 3.0)})
    with pytest.raises(type(error)):
        search(Scripted([A, B, C]), journal, 1, 3)
    assert states(store, run) == ["done", "distilling", "proposed"]
    assert store.candidates(run)[1].error is None
    assert judge.judged == [A, B]


def test_a_request_is_seen_at_the_next_step(store: Store, run: int) -> None:
    looked = 0

    def check() -> None:
        nonlocal looked
        looked += 1
        if looked == 4:  # before the candidate, once measured, first step, second step
            raise EndRequested("stopped")

    journal, _ = journal_of(store, run, {A: done(0.3, 2.0)}, check)
    with pytest.raises(EndRequested):
        search(Scripted([A]), journal, 1, 1)
    (candidate,) = store.candidates(run)
    assert {loss.step for loss in store.layer_losses(candidate.id)} == {1}


def test_a_candidate_over_budget_has_a_latency_but_no_loss_and_a_reward_of_nothing(
    store: Store, run: int
) -> None:
    journal, _ = journal_of(store, run, {A: over_budget})
    controller = Scripted([A])
    search(controller, journal, 1, 1)
    (candidate,) = store.candidates(run)
    assert candidate.state == "over_budget"
    assert candidate.latency == reading(99.0)
    assert candidate.loss is candidate.reward is None
    assert not candidate.weights
    assert store.layer_losses(candidate.id) == []
    teacher, measured = store.run(run).teacher, reading(99.0)
    assert teacher is not None
    # as if the teacher had been as fast in that session as when the run began
    ms = measured.p50 * teacher.latency.p50 / measured.teacher_p50
    assert controller.told == [Outcome(A, 0.0, None, ms)]


def test_of_a_run_with_tasks_the_controller_is_told_the_scores(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: done(0.3, 2.0)})
    search(Scripted([A]), journal, 1, 1)
    (row,) = store.candidates(run)
    store.update_candidate(row.id, scores={f"mine{PROXY}": 0.9})
    (outcome,) = journal.outcomes(1)
    assert outcome.loss == pytest.approx(0.1)


def test_a_candidate_far_over_budget_has_an_estimate_its_flops_and_no_latency(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: far_over_budget, B: done(0.3, 2.0), C: over_budget})
    controller = Scripted([A, B, C])
    search(controller, journal, 1, 3)
    skipped, kept, measured = store.candidates(run)
    assert (skipped.state, skipped.estimated_ms) == ("over_budget", 123.5)
    assert skipped.flops == A.flops(store.run(run).spec.latency.sequence_length)
    assert (skipped.parameters, skipped.latency, skipped.loss, skipped.reward) == (None,) * 4
    assert not skipped.weights
    assert (skipped.step, skipped.steps) == (measured.step, measured.steps)
    assert kept.estimated_ms is measured.estimated_ms is None
    assert controller.told[0] == Outcome(A, 0.0)


def test_a_judged_candidate_is_never_judged_again(store: Store, run: int) -> None:
    acts: dict[Architecture, Act] = {A: done(0.3, 2.0), B: over_budget, C: raises(KeyboardInterrupt())}
    journal, _ = journal_of(store, run, acts)
    with pytest.raises(KeyboardInterrupt):
        search(Scripted([A, B, C]), journal, 1, 3)
    before = store.candidates(run)[:2]
    store.end_run(run, "interrupted")
    for path in store.files(run).glob("*"):
        if path.name == str(store.candidates(run)[2].id):
            (path / "config.json").unlink()
            path.rmdir()
    journal, judge = journal_of(store, run, {**acts, C: done(0.1, 1.0)})
    controller = Scripted([A, B, C])
    search(controller, journal, 1, 3)
    assert judge.judged == [C]
    assert store.candidates(run)[:2] == before
    assert [outcome.architecture for outcome in controller.told] == [A, B, C]


def test_a_failed_candidate_is_not_tried_again_when_the_run_goes_on(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: raises(RuntimeError("no"))})
    search(Scripted([A]), journal, 1, 1)
    journal, judge = journal_of(store, run, {A: done(0.1, 1.0)})
    search(Scripted([A]), journal, 1, 1)
    assert judge.judged == []
    assert states(store, run) == ["failed"]


def test_a_candidate_that_ended_its_process_three_times_has_failed_and_the_search_goes_on(
    store: Store, run: int
) -> None:
    told: list[Candidate] = []
    (killer, fine) = add_episode(store, run, 1, [A, B])
    for _ in range(2):
        store.begin_attempt(killer)
    journal, judge = journal_of(store, run, {A: done(0.4, 2.0), B: done(0.4, 2.0)}, told=told.append)
    store.begin_attempt(killer)  # the third, in which it was killed too
    search(Scripted([A, B]), journal, 1, 2)
    assert states(store, run) == ["failed", "done"]
    assert judge.judged == [B]
    assert "ended its process 3 times" in (store.candidate(killer).error or "")
    assert [row.id for row in told] == [killer, fine]


def test_each_judged_candidate_is_told_of_once_as_it_stands_in_the_store(store: Store, run: int) -> None:
    told: list[Candidate] = []
    acts: dict[Architecture, Act] = {A: done(0.3, 2.0), B: raises(RuntimeError("no")), C: over_budget}
    journal, _ = journal_of(store, run, acts, told=told.append)
    search(Scripted([A, B, C]), journal, 1, 3)
    assert told == store.candidates(run)


def pruned(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
    listener.costs(Costs(1_000, 2_000, None, 4.0))
    listener.held_out(0, {"yardstick": {(2, 4): 0.9}, "hidden": {(1, 2): 0.8}})
    listener.held_out(10, {"yardstick": {(2, 4): 0.7}})
    return Judgement("pruned", 0.7, 0.45, rung=10)


def pruned_later(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
    judgement = pruned(architecture, folder, listener)
    listener.costs(Costs(1_000, 2_000, reading(4.0), 4.0))
    listener.held_out(20, {"yardstick": {(2, 4): 0.6}})
    return replace(judgement, loss=0.6, rung=20)


def cost(milliseconds: float) -> Cost:
    return Cost(reading(milliseconds).p50, 1 / reading(milliseconds).speedup)


def test_a_pruned_candidate_has_the_loss_of_its_rung_its_estimates_and_no_weights(
    store: Store, run: int
) -> None:
    journal, _ = journal_of(store, run, {A: pruned})
    search(Scripted([A]), journal, 1, 1)
    (row,) = store.candidates(run)
    assert (row.state, row.rung, row.step, row.loss, row.reward) == ("pruned", 10, 10, 0.7, 0.45)
    assert (row.latency, row.estimated_ms, row.weights) == (None, 4.0, False)
    assert row.to_dict()["rung"] == 10
    teacher = store.run(run).teacher
    assert teacher is not None
    likely = loss_of(0.45, 4.0, teacher.latency.p50, RewardSpec())
    assert journal.outcomes(1) == [Outcome(A, 0.45, likely, None, pruned=True)]


def test_an_episode_is_written_and_judged_from_the_cheapest_on_each_beside_all_measured_before(
    store: Store, run: int
) -> None:
    first, second, third = sorted((A, B, C), key=lambda each: each.flops(128))
    acts = {first: done(0.25, 2.0), second: pruned_later, third: over_budget}
    journal, judge = journal_of(store, run, acts)
    search(Scripted([third, second, first]), journal, 1, 3)
    assert judge.judged == [row.architecture for row in store.candidates(run)] == [first, second, third]
    assert judge.peers[2] == [
        Peer(cost(2.0), {1: 0.75, 2: 0.5}, 0.25),
        Peer(cost(4.0), {0: 0.9, 10: 0.7, 20: 0.6}, None),
    ]
    assert [len(peers) for peers in judge.peers] == [0, 1, 2]


def test_no_candidate_is_judged_beside_a_static_student_which_has_little_left_to_learn(
    store: Store, run: int
) -> None:
    static = static_student(24)
    journal, judge = journal_of(store, run, {each: done(0.25, 2.0) for each in (A, B, static)})
    search(Scripted([A, B]), journal, 1, 2, beside=[static])
    assert judge.judged[0] == static  # the cheapest
    assert [len(peers) for peers in judge.peers] == [0, 0, 1]


def test_a_later_episode_is_judged_from_the_dearest_on_each_beside_those_of_earlier_episodes_alone(
    store: Store, run: int
) -> None:
    first, second, third = sorted((A, B, C), key=lambda each: each.flops(128))
    journal, judge = journal_of(store, run, {each: done(0.25, 2.0) for each in (A, B, C)})
    search(Scripted([second], [first, third]), journal, 2, 2)
    assert judge.judged == [second, third, first]
    assert [len(peers) for peers in judge.peers] == [0, 1, 1]


def test_what_a_candidate_did_beyond_its_rung_is_dropped(store: Store, run: int) -> None:
    def pruned_with_hindsight(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        whole = done(0.3, 2.0)(architecture, folder, listener)
        return replace(whole, state="pruned", rung=1, loss=0.8)

    journal, _ = journal_of(store, run, {A: pruned_with_hindsight})
    search(Scripted([A]), journal, 1, 1)
    (row,) = store.candidates(run)
    assert (row.state, row.step, row.loss, row.weights) == ("pruned", 1, 0.8, False)
    assert {losses.step for losses in store.layer_losses(row.id)} == {1}
    assert [path.name for path in store.files(run, row.id).iterdir()] == ["config.json"]


def test_a_candidate_that_is_judged_is_not_judged_again(store: Store, run: int) -> None:
    journal, judge = journal_of(store, run, {A: done(0.3, 2.0)})
    search(Scripted([A]), journal, 1, 1)
    (candidate,) = store.candidates(run)
    assert list(journal.judged([candidate.id])) == [candidate.id]
    assert store.candidate(candidate.id) == replace(candidate, latency=reading(2.0))
    assert len(judge.judged) == 1


def test_a_candidate_beside_others_takes_its_share_of_the_time(store: Store, run: int) -> None:
    def slow(architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        time.sleep(0.2)
        return done(0.3, 2.0)(architecture, folder, listener)

    journal, judge = journal_of(store, run, {A: slow})
    judge.slots = 4
    search(Scripted([A]), journal, 1, 1)
    assert 0.05 <= store.candidates(run)[0].seconds < 0.2


def test_a_candidate_whose_process_ended_begins_anew(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: done(0.3, 2.0)})
    journal.begin(1, [Proposal(A)])
    (candidate,) = store.candidates(run)
    store.begin_attempt(candidate.id)
    store.update_candidate(candidate.id, state="distilling", step=7, notes=["A note."])
    store.add_layer_losses(candidate.id, [LayerLoss(7, 1, 2, 9.0)])
    (begun,) = list(journal.judged([candidate.id]))
    assert begun == candidate.id
    row = store.candidate(candidate.id)
    assert (row.state, row.attempts, row.notes) == ("done", 2, ())
    assert {losses.step for losses in store.layer_losses(row.id)} == {1, 2}


def test_a_search_that_goes_on_knows_its_peers_from_the_store(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: pruned, B: pruned_later})
    search(Scripted([A, B]), journal, 1, 2)
    journal, judge = journal_of(store, run, {C: over_budget})
    search(Scripted([A, B], [C]), journal, 2, 2)
    assert judge.peers == [[Peer(cost(4.0), {0: 0.9, 10: 0.7, 20: 0.6}, None)]]


def test_a_space_that_runs_out_ends_the_search(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: done(0.3, 2.0)})
    search(Scripted([A], []), journal, 2, 3)
    assert states(store, run) == ["done"]


def kept_files(store: Store, run: int) -> list[set[str]]:
    return [
        {path.name for path in store.files(run, candidate.id).iterdir()}
        for candidate in store.candidates(run)
    ]


ALL = {"config.json", "model.safetensors", "tokenizer.json", "more"}


def test_weights_that_leave_the_frontier_are_deleted_but_not_their_config(store: Store) -> None:
    run = begin_run(store, RunSpec(search=SearchSpec(keep_weights="frontier")))
    # B is slower and worse than A from the start; C, faster and better than A, dethrones it
    acts = {A: done(0.3, 2.0), B: done(0.4, 3.0), C: done(0.2, 1.0)}
    journal, _ = journal_of(store, run, acts)
    journal.begin(1, [Proposal(A), Proposal(B)])
    journal.outcomes(1)
    assert kept_files(store, run) == [ALL, {"config.json"}]
    journal.begin(2, [Proposal(C)])
    journal.outcomes(2)
    assert kept_files(store, run) == [{"config.json"}, {"config.json"}, ALL]
    assert [candidate.weights for candidate in store.candidates(run)] == [False, False, True]
    assert states(store, run) == ["done"] * 3
    assert [candidate.loss for candidate in store.candidates(run)] == [0.3, 0.4, 0.2]


def test_weights_that_were_scored_or_begun_with_are_kept_also_off_the_frontier(store: Store) -> None:
    run = begin_run(store, RunSpec(search=SearchSpec(keep_weights="frontier")))
    journal, _ = journal_of(store, run, {A: done(0.3, 2.0), B: done(0.2, 1.5), C: done(0.1, 1.0)})
    journal.begin(1, [Proposal(A)])
    journal.outcomes(1)
    store.create_scoring(ScoreSpec(tasks=["packaged"]), candidate=store.candidates(run)[0].id)
    journal.begin(2, [Proposal(B), Proposal(C)])
    journal.outcomes(2)
    assert [candidate.weights for candidate in store.candidates(run)] == [True, True, False]  # A, C, B
    assert kept_files(store, run) == [ALL, ALL, {"config.json"}]


def test_all_weights_are_kept_where_the_spec_says_so(store: Store, run: int) -> None:
    journal, _ = journal_of(store, run, {A: done(0.3, 2.0), B: done(0.4, 3.0)})
    search(Scripted([A, B]), journal, 1, 2)
    assert kept_files(store, run) == [ALL, ALL]
    assert all(candidate.weights for candidate in store.candidates(run))
