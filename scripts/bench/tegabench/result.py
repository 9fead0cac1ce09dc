"""What is measured and what came of it: workloads, contestants, samples, medians, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tegabench.client import BUSY, Timing
from tegabench.systems.base import Role

#: Differences under this factor are the noise of small, shared machines.
NOISE = 1.3


@dataclass(frozen=True)
class Sample:
    """One run of one contestant."""

    #: In the unit of the workload.
    value: float
    #: CPU time over wall time; None where it says nothing.
    client_cpu: float | None = None
    server_cpu: float | None = None
    #: Of one operation, in seconds.
    p50: float | None = None
    p99: float | None = None
    worst: float | None = None
    #: Acknowledged writes that were looked up afterwards; every one was there.
    checked: int = 0

    @classmethod
    def of(
        cls, timing: Timing, value: float, server_cpu: float | None = None, checked: int = 0
    ) -> Sample:
        """A sample with the latencies and the client's share of a run of the client."""
        return cls(
            value,
            timing.client_cpu,
            server_cpu,
            timing.percentile(0.5),
            timing.percentile(0.99),
            timing.latencies[-1],
            checked,
        )


@dataclass(frozen=True)
class Contestant:
    """Something that can do the workload."""

    title: str
    role: Role
    measure: Callable[[], Sample]


#: Gives the limit of a workload from the values of its limit contestants, by title.
Limit = Callable[[Mapping[str, float]], float]


def only(values: Mapping[str, float]) -> float:
    """The limit where there is one limit contestant."""
    (value,) = values.values()
    return value


def in_series(*rates: float) -> float:
    """The rate of steps that wait for each other, each with a rate of its own."""
    return 1 / sum(1 / rate for rate in rates)


@dataclass(frozen=True)
class Workload:
    """A row of the table."""

    title: str
    unit: str
    contestants: Sequence[Contestant]
    #: What the limit is made of, for the notes.
    limit_title: str = ""
    limit: Limit = only
    higher_is_better: bool = True
    #: The client is part of what is measured, so it may well be what limits it.
    client_counts: bool = False
    #: Measured once: it takes long and hardly varies.
    once: bool = False


@dataclass
class Result:
    """The samples of a workload: those of each contestant, in the order of the runs."""

    workload: Workload
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    #: Contestants that could not be measured to the end, and why.
    failures: dict[str, str] = field(default_factory=dict)

    def value(self, title: str) -> float | None:
        """The median of a contestant."""
        samples = self.samples.get(title)
        return statistics.median([s.value for s in samples]) if samples else None

    def of_role(self, role: Role) -> dict[str, float]:
        """The medians of the contestants in a role."""
        titles = [c.title for c in self.workload.contestants if c.role == role]
        return {t: value for t in titles if (value := self.value(t)) is not None}

    @property
    def tega(self) -> float | None:
        """tega's median."""
        return next(iter(self.of_role("tega").values()), None)

    @property
    def limit(self) -> float | None:
        """The limit from the medians of what it is made of; None where a part is missing."""
        wanted = [c.title for c in self.workload.contestants if c.role == "limit"]
        found = self.of_role("limit")
        return self.workload.limit(found) if wanted and len(found) == len(wanted) else None

    def ratio(self, other: float | None) -> float | None:
        """How many times better tega is than this: over 1 is ahead, whatever the unit."""
        tega = self.tega
        if not tega or not other:
            return None
        return tega / other if self.workload.higher_is_better else other / tega

    def client_bound(self, title: str) -> bool:
        """Whether the client may have been what limited this contestant."""
        if self.workload.client_counts:
            return False
        shares = [s.client_cpu for s in self.samples.get(title, []) if s.client_cpu is not None]
        return bool(shares) and statistics.median(shares) > BUSY
