"""The results as a picture: how many times better tega is than the limit and each peer."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tegabench.result import NOISE, Result

_MARKS = "oDs^vPX<>*hpd"


def draw(results: Sequence[Result], path: Path) -> str | None:
    """Write the chart as PNG.

    :returns: why there is none, and what to do; None when it was written
    """
    if find_spec("matplotlib") is None:
        return f"no chart: for one, {sys.executable} -m pip install matplotlib"
    rows = [(result, ratios(result)) for result in results if ratios(result)]
    if not rows:
        return "no chart: tega was not measured beside anything"
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + 0.42 * len(rows)), layout="constrained")
    series = list(dict.fromkeys(name for _, found in rows for name in found))
    for number, name in enumerate(series):
        points = [(found[name], row) for row, (_, found) in enumerate(rows) if name in found]
        axes.scatter(
            [ratio for ratio, _ in points],
            [row for _, row in points],
            label=name,
            marker=_MARKS[number % len(_MARKS)],
            color="black" if name == "limit" else None,
            s=42,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.axvspan(1 / NOISE, NOISE, color="0.93", zorder=0)
    axes.axvline(1, color="0.5", linewidth=1, zorder=1)
    axes.set_yticks(range(len(rows)), [result.workload.title for result, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="both", color="0.9", linewidth=0.6, zorder=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("how many times better tega is than ... (right of 1: ahead; grey: noise)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=6, fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return None


def ratios(result: Result) -> dict[str, float]:
    """tega against the limit and each peer of a workload."""
    others = {"limit": result.limit, **result.of_role("peer")}
    found = {name: result.ratio(value) for name, value in others.items()}
    return {name: ratio for name, ratio in found.items() if ratio is not None}
