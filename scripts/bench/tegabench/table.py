"""The results as Markdown, ready for ``doc/performance.md``."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from tegabench.result import NOISE, Result, Sample

#: What a missing figure looks like.
NONE = "—"


def figure(value: float | None) -> str:
    """Three digits that count, thousands apart."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return whole(round(rounded)) if abs(rounded) >= 100 else f"{rounded:.3g}"


def whole(number: int) -> str:
    """Every digit, thousands apart."""
    return f"{number:,}".replace(",", " ")


def factor(ratio: float | None) -> str:
    """A ratio with two digits that count, such as 0.93, 1.4 or 12."""
    if ratio is None:
        return NONE
    return f"{ratio:.2f}" if ratio < 0.995 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; text to the left, figures to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def summary(results: Sequence[Result], columns: Sequence[str]) -> str:
    """A row for each workload: limit, tega, each peer, and how many times better tega is.

    :param columns: peers with a column of their own; all others share the last one
    """
    shown = [c for c in columns if any(c in r.samples or c in r.failures for r in results)]
    head = ["workload", "unit", "limit", "tega", "tega : limit", *shown, "others"]
    rows = []
    for result in results:
        others = [
            f"{contestant.title} {_peer(result, contestant.title)}"
            for contestant in result.workload.contestants
            if contestant.role == "peer" and contestant.title not in shown
        ]
        rows.append(
            [
                result.workload.title,
                result.workload.unit,
                figure(result.limit),
                _tega(result),
                factor(result.ratio(result.limit)),
                *[_peer(result, title) for title in shown],
                ", ".join(others) or NONE,
            ]
        )
    return markdown_table(head, rows)


def details(results: Sequence[Result]) -> str:
    """A row for each contestant of each workload, with the spread of its runs."""
    head = [
        *("workload", "contestant", "median", "least to most", "p50 ms", "p99 ms", "worst ms"),
        *("client CPU", "server CPU", "writes checked"),
    ]
    rows = []
    for result in results:
        for title, samples in result.samples.items():
            seen = [sample.value for sample in samples]
            checked = sum(sample.checked for sample in samples)
            rows.append(
                [
                    result.workload.title,
                    title,
                    f"{figure(result.value(title))} {result.workload.unit}",
                    f"{figure(min(seen))} to {figure(max(seen))}",
                    *[figure(_milliseconds(samples, name)) for name in ("p50", "p99", "worst")],
                    *[_percent(samples, name) for name in ("client_cpu", "server_cpu")],
                    whole(checked) if checked else NONE,
                ]
            )
    return markdown_table(head, rows)


def document(
    facts: Sequence[tuple[str, str]],
    results: Sequence[Result],
    columns: Sequence[str],
    notes: Sequence[str],
    runs: int,
) -> str:
    """The whole report."""
    limits: dict[str, list[str]] = {}
    for result in results:
        if result.workload.limit_title:
            limits.setdefault(result.workload.limit_title, []).append(result.workload.title)
    busy = [
        f"{title} in {result.workload.title!r}: the client used more than 90 % of its core, so "
        "the figure (≥) is what the client can ask"
        for result in results
        for title in result.samples
        if result.client_bound(title)
    ]
    guide = [
        f"Medians of {runs} interleaved runs. Beside a peer's figure stands how many times better "
        f"tega is (below 1: worse); differences under {NOISE} times are the noise of the machine.",
        "In flight: HTTP (and gRPC) uses one connection for each operation in flight, WebSockets "
        "and the native protocols of the peers 8 connections with 8 operations each.",
        "Every write carries a value never written before, and after each run what was "
        "acknowledged is looked up in the server.",
        *[f"Limit, {limit}: {'; '.join(titles)}." for limit, titles in limits.items()],
    ]
    return (
        "# Benchmark\n\n"
        + markdown_table(["machine", ""], facts)
        + f"\n{summary(results, columns)}\n"
        + "".join(f"- {line}\n" for line in [*guide, *busy, *notes])
        + f"\n## Each contestant\n\n{details(results)}"
    )


def _tega(result: Result) -> str:
    titles = [c.title for c in result.workload.contestants if c.role == "tega"]
    return _figure_of(result, titles[0]) if titles else NONE


def _peer(result: Result, title: str) -> str:
    value = result.value(title)
    ratio = result.ratio(value)
    shown = _figure_of(result, title)
    return shown if ratio is None else f"{shown} ({factor(ratio)})"


def _figure_of(result: Result, title: str) -> str:
    if title in result.failures:
        return "failed"
    bound = "≥ " if result.client_bound(title) and result.workload.higher_is_better else ""
    return bound + figure(result.value(title))


def _numbers(samples: Sequence[Sample], name: str) -> list[float]:
    return [value for sample in samples if (value := getattr(sample, name)) is not None]


def _milliseconds(samples: Sequence[Sample], name: str) -> float | None:
    found = _numbers(samples, name)
    return statistics.median(found) * 1000 if found else None


def _percent(samples: Sequence[Sample], name: str) -> str:
    found = _numbers(samples, name)
    return f"{statistics.median(found):.0%}" if found else NONE
