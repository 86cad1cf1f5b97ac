from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, PreTrainedModel, RobertaConfig, RobertaModel

from kdnas_core.errors import BadInput
from kdnas_core.latency import runtimes
from kdnas_core.latency.protocol import time_in_turns
from kdnas_core.latency.runtimes import check_runtime, feed_of, on_cuda, runner, threads
from kdnas_core.spec import USUAL_RUNTIMES, LatencySpec, Runtime
from tests.sentences import is_one_sentence

SHAPE: dict[str, Any] = {
    "vocab_size": 90,
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
}


@pytest.fixture
def model() -> PreTrainedModel:
    return BertModel(BertConfig(**SHAPE)).eval()


def protocol_of(runtime: Runtime, **fields: int) -> LatencySpec:
    return LatencySpec(runtime=runtime, threads=3, batch_size=2, sequence_length=40, **fields)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", USUAL_RUNTIMES)
def test_a_model_can_be_timed_in_every_runtime_of_the_processor(
    model: PreTrainedModel, runtime: Runtime
) -> None:
    protocol = LatencySpec(runtime=runtime, sequence_length=8)
    before = copy.deepcopy(model.state_dict())
    (timing,) = time_in_turns([runner(model, protocol)], warmup=1, runs=3)
    assert len(timing.samples) >= 3
    assert min(timing.samples) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


class Graph:
    def SerializeToString(self) -> bytes:
        return b"float32"


@pytest.mark.parametrize("graph", [Graph(), None], ids=["a kept graph", "exported"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-int8"])
def test_onnx_runtime_is_given_the_threads_batch_and_length_of_the_protocol_and_the_file_of_the_runtime(
    model: PreTrainedModel, runtime: Runtime, graph: Graph | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    fed: list[dict[str, NDArray[np.int64]]] = []

    class Session:
        def __init__(self, path: Path, options: Any, providers: list[str]) -> None:
            made.append((options.intra_op_num_threads, options.inter_op_num_threads, providers))
            made.append(path.read_text())

        def run(self, outputs: None, feed: dict[str, NDArray[np.int64]]) -> None:
            fed.append(feed)

    monkeypatch.setattr(runtimes, "graph_of", lambda model: graph)
    monkeypatch.setattr(runtimes, "write_onnx", lambda model, path: path.write_text("float32"))
    monkeypatch.setattr(runtimes, "quantise", lambda path, out: out.write_text(f"int8 of {path.read_text()}"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    run = runner(model, protocol_of(runtime))
    run()
    run()
    expected = "int8 of float32" if runtime == "onnxruntime-int8" else "float32"
    assert made == [(3, 1, ["CPUExecutionProvider"]), expected]
    for feed in fed:
        assert feed["input_ids"].shape == feed["attention_mask"].shape == (2, 40)
        assert feed["input_ids"].dtype == feed["attention_mask"].dtype == np.int64
        assert feed["attention_mask"].all()
        assert not feed["token_type_ids"].any()
        assert 0 <= feed["input_ids"].min() <= feed["input_ids"].max() < 90
    assert np.array_equal(fed[0]["input_ids"], fed[1]["input_ids"])


def test_a_model_without_token_types_is_given_none() -> None:
    model = RobertaModel(RobertaConfig(**SHAPE, type_vocab_size=1))
    assert list(feed_of(model, protocol_of("torch"))) == ["input_ids", "attention_mask"]


def test_torch_runs_the_model_itself_without_gradients(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[dict[str, torch.Tensor], bool]] = []

    def forward(**tensors: torch.Tensor) -> None:
        seen.append((tensors, torch.is_inference_mode_enabled()))

    monkeypatch.setattr(model, "forward", forward)
    runner(model, protocol_of("torch"))()
    ((tensors, without_gradients),) = seen
    assert without_gradients
    assert tensors["input_ids"].shape == (2, 40)
    assert tensors["attention_mask"].all()


def test_torch_has_the_threads_of_the_protocol_during_a_timing_and_its_own_afterwards(
    model: PreTrainedModel,
) -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), threads(protocol_of("torch")):
        assert torch.get_num_threads() == 3
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


# CUDA, with stand-ins


@pytest.mark.parametrize("runtime", USUAL_RUNTIMES)
def test_every_machine_has_the_usual_runtimes(runtime: Runtime) -> None:
    check_runtime(runtime)


def test_cuda_is_refused_in_one_sentence_where_there_is_none(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput) as caught:
        runner(model, protocol_of("torch-cuda"))
    assert is_one_sentence(str(caught.value))
    assert "'torch-cuda'" in str(caught.value)


class Gpu:
    """Stands for `torch.cuda`: each run takes 7 ms of the device's own time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
        self.log: list[str] = []
        self.now = 0.0
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                gpu.log.append("event")
                self.at = gpu.now

            def elapsed_time(self, other: Any) -> float:
                assert gpu.log[-1] == "synchronised"
                return float(other.at - self.at)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: self.log.append("synchronised"))
        monkeypatch.setattr(torch.cuda, "list_gpu_processes", lambda: listed)

    def run(self) -> None:
        self.log.append("run")
        self.now += 7.0


OURS = "GPU:0\nprocess       4242 uses      512.000 MB GPU memory"
THEIRS = "process        777 uses     9000.000 MB GPU memory"


@pytest.mark.parametrize(
    ("listed", "clean"),
    [
        (OURS, True),
        (f"{OURS}\n{THEIRS}", False),
        ("GPU:0\nno processes are running", True),
        ("pynvml module not found, please install nvidia-ml-py", True),
    ],
)
def test_a_run_on_cuda_is_timed_by_events_and_clean_where_no_other_process_has_the_device(
    monkeypatch: pytest.MonkeyPatch, listed: str, clean: bool
) -> None:
    gpu = Gpu(monkeypatch, listed)
    assert on_cuda(gpu.run)() == (7.0, clean)
    assert gpu.log == ["synchronised", "event", "run", "event", "synchronised"]


def test_where_the_processes_of_a_device_cannot_be_listed_a_run_counts_as_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Gpu(monkeypatch, "")

    def broken() -> str:
        raise RuntimeError("NVML: insufficient permissions")

    monkeypatch.setattr(torch.cuda, "list_gpu_processes", broken)
    assert on_cuda(gpu.run)() == (7.0, True)


def test_for_cuda_a_copy_of_the_model_is_moved_and_the_model_stays_where_it_is(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch, OURS)
    moved: list[tuple[torch.nn.Module, str]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: moved.append((self, device)))
    runner(model, protocol_of("torch-cuda"))()
    ((copied, device),) = moved
    assert device == "cuda"
    assert isinstance(copied, BertModel)
    assert copied is not model
    assert gpu.log == ["synchronised", "event", "event", "synchronised"]
