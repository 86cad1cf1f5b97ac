"""Prints an export in a terminal."""

from __future__ import annotations

import sys

from kdnas_core.package.checks import Exported, loss_by_int8
from kdnas_core.package.children import Say


def news() -> Say:
    """Returns a callback that prints each new activity on stderr."""
    last = ""

    def say(activity: str) -> None:
        nonlocal last
        if activity != last:
            print(f"{activity} ...", file=sys.stderr)
        last = activity

    return say


def export_lines(done: Exported) -> list[str]:
    """Describes an export: its checks, latencies and notes."""
    checks = done.checks
    libraries = [
        "stock transformers",
        *(["onnxruntime"] if done.has_onnx else []),
        *(["sentence-transformers"] if done.has_vectors else []),
    ]
    latencies = [
        f"  {runtime:<18} {reading.p50:8.2f} ms {reading.speedup:6.1f}x"
        for runtime, reading in checks.latencies.items()
    ]
    lost = [] if checks.onnx is None else [loss_by_int8(checks.onnx)]
    return [
        f"{done.path}: loaded by {', '.join(libraries)}; sha256 {done.sha256}",
        *latencies,
        *filter(None, lost),
        *checks.notes,
        *([] if done.zip is None else [str(done.zip)]),
    ]
