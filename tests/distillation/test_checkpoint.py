from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdnas_core.distillation import loop


class Killed(BaseException):
    pass


class Tied(nn.Module):
    """Two layers with one weight, one with a weight of its own and one that learns nothing at first."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.own, self.late = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(2, 2)
        self.same = self.one
        self.register_buffer("seen", torch.tensor(seed))


def made(seed: int) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    modules: dict[str, nn.Module] = {"student": Tied(seed), "objective": nn.Linear(2, 1)}
    parameters = [weight for module in modules.values() for weight in module.parameters()]
    return modules, torch.optim.AdamW(parameters, lr=0.1, fused=True)


def step(modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, late: bool = False) -> None:
    student: Any = modules["student"]
    seen = student.own(student.same(student.one(torch.ones(4, 3))))
    seen = student.late(seen) if late else seen
    modules["objective"](seen).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


def weights(modules: dict[str, nn.Module]) -> list[torch.Tensor]:
    return [tensor.clone() for module in modules.values() for tensor in module.state_dict().values()]


def test_what_was_saved_is_read_into_what_was_made_alike(tmp_path: Path) -> None:
    modules, optimiser = made(seed=1)
    for _ in range(3):
        step(modules, optimiser)
    loop.save_checkpoint(tmp_path / "half" / "way.safetensors", modules, optimiser, 3)
    others, other_optimiser = made(seed=2)
    assert loop.load_checkpoint(tmp_path / "half" / "way.safetensors", others, other_optimiser) == 3
    for one, other in zip(weights(modules), weights(others), strict=True):
        assert torch.equal(one, other)
    assert others["student"].same is others["student"].one


def test_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    modules, optimiser = made(seed=1)
    for _ in range(3):
        step(modules, optimiser)
    loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 3)
    others, other_optimiser = made(seed=2)
    loop.load_checkpoint(tmp_path / "saved", others, other_optimiser)
    for late in (False, False, True, True):  # some weights are trained only now
        step(modules, optimiser, late)
        step(others, other_optimiser, late)
    for one, other in zip(weights(modules), weights(others), strict=True):
        assert torch.equal(one, other)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    modules, optimiser = made(seed=1)
    step(modules, optimiser)
    before = weights(modules)
    loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 1)
    assert all(map(torch.equal, weights(modules), before))
    kept = optimiser.state_dict()["state"]
    loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 1)
    for index, state in optimiser.state_dict()["state"].items():
        assert all(torch.equal(tensor, kept[index][name]) for name, tensor in state.items())


def test_a_later_checkpoint_takes_the_place_of_the_earlier_and_nothing_else_is_left(tmp_path: Path) -> None:
    modules, optimiser = made(seed=1)
    for taken in (1, 2, 3):
        step(modules, optimiser)
        loop.save_checkpoint(tmp_path / "saved", modules, optimiser, taken)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert loop.load_checkpoint(tmp_path / "saved", *made(seed=2)) == 3


@pytest.mark.parametrize("moment", ["half written", "written", "not yet replaced"])
def test_a_process_that_is_killed_while_it_saves_leaves_the_earlier_checkpoint_whole(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, optimiser = made(seed=1)
    step(modules, optimiser)
    loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 1)
    expected = weights(modules)

    def write_half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"\x10\x00\x00")
        raise Killed

    def kill(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "half written":
            patched.setattr(loop, "save_file", write_half)
        elif moment == "written":
            patched.setattr(os, "fsync", kill)
        else:
            patched.setattr(Path, "replace", kill)
        step(modules, optimiser)
        with pytest.raises(Killed):
            loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 2)
    others, other_optimiser = made(seed=2)
    assert loop.load_checkpoint(tmp_path / "saved", others, other_optimiser) == 1
    assert all(map(torch.equal, weights(others), expected))
    loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 2)  # a leftover file does no harm
    assert loop.load_checkpoint(tmp_path / "saved", others, other_optimiser) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_killed_first_save_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(descriptor: int) -> None:
        raise Killed

    monkeypatch.setattr(os, "fsync", kill)
    modules, optimiser = made(seed=1)
    with pytest.raises(Killed):
        loop.save_checkpoint(tmp_path / "saved.safetensors", modules, optimiser, 1)
    assert not (tmp_path / "saved.safetensors").exists()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    modules, optimiser = made(seed=1)
    step(modules, optimiser)
    loop.save_checkpoint(tmp_path / "saved", modules, optimiser, 1)
    others, other_optimiser = made(seed=2)
    others["student"].own = nn.Linear(3, 5)
    with pytest.raises(RuntimeError, match="size mismatch"):
        loop.load_checkpoint(tmp_path / "saved", others, other_optimiser)
