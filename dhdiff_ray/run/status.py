"""Progress of a job, from its events alone: category by stage, with time left, GPU seconds and failures.

Not in the paper. The same table while following a job, from ``jobs status`` anywhere, and from a run's folder without
a cluster, because all of them read the same events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

STAGES = ("train", "synthesize", "score", "detect")
"""Verbs that every category goes through, in order."""
QUIET_SECONDS = 60.0
"""Seconds without progress after which a running stage is reported as silent."""
STATES = ("waiting", "running", "done", "failed")


@dataclass
class Stage:
    """One verb of one category."""

    state: str = "waiting"
    """One of ``STATES``."""
    seconds: float | None = None
    """How long it took, once it has ended."""
    gpu_seconds: float = 0.0
    """GPU seconds that its workers reported; for scoring and testing those of one worker, a lower bound."""
    message: str = ""
    """Why it failed."""
    since: float | None = None
    """Seconds since the epoch of its start."""
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    """(done, total) of each of its progress bars."""
    seen: float | None = None
    """Time of its last event."""
    fresh: float = 0.0
    """Share of the work that was done before it started."""

    @property
    def share(self) -> float | None:
        """Share of the work done, in [0, 1]; None where it is not known."""
        total = sum(total for _, total in self.parts.values())
        return sum(done for done, _ in self.parts.values()) / total if total else None

    def quiet(self, now: float) -> float:
        """Seconds without progress of a running stage; 0 while they are few."""
        silent = now - (self.seen or self.since or now)
        return silent if self.state == "running" and silent >= QUIET_SECONDS else 0.0

    def left(self, now: float) -> float | None:
        """Seconds until it is done at the pace so far; None where that cannot be said."""
        share = self.share
        if self.state != "running" or self.since is None or not share or share <= self.fresh:
            return None
        pace = (share - self.fresh) / max((self.seen or now) - self.since, 1e-9)
        return max(0.0, (1 - share) / pace - (now - (self.seen or now)))


class Status:
    """Reads events one after the other."""

    def __init__(self, events: Iterable[dict[str, Any]] = ()) -> None:
        self.stages: dict[str, dict[str, Stage]] = {}
        """Stages by category, in the order of their first event."""
        self.warnings: list[str] = []
        for event in events:
            self.read(event)

    def read(self, event: dict[str, Any]) -> None:
        """Read one event; kinds without progress are ignored."""
        verb, name = str(event.get("verb", "")), str(event.get("category") or "")
        if verb not in STAGES or not name:
            return
        category, _, part = name.partition(", ")  # "bottle, real" is a bar of bottle
        stage = self.stages.setdefault(category, {}).setdefault(verb, Stage())
        kind, time = event.get("event"), event.get("time")
        if kind == "stage":
            self._turn(stage, event)
        elif kind == "failed":
            stage.state, stage.message = "failed", str(event.get("message", "failed"))
        elif kind == "warning":
            self.warnings.append(f"{verb} {category}: {event.get('message', '')}")
        elif kind == "metric" and stage.state == "running":  # the last thing that scoring and testing tell
            self._end(stage, time)
        elif event.get("total") and "done" in event:
            self._advance(stage, part, event, time)

    def as_dict(self, now: float) -> dict[str, Any]:
        """Plain JSON values: every category's stages."""
        categories = {
            category: {
                verb: {k: v for k, v in asdict(stage).items() if k not in ("parts", "seen", "since", "fresh")}
                | {"share": stage.share, "seconds_left": stage.left(now), "quiet_seconds": round(stage.quiet(now), 1)}
                for verb, stage in stages.items()
            }
            for category, stages in self.stages.items()
        }
        return {"categories": categories, "warnings": self.warnings}

    @staticmethod
    def _turn(stage: Stage, event: dict[str, Any]) -> None:
        state = event["state"]
        if state == "running":
            stage.since, stage.seen, stage.parts, stage.fresh = event.get("time"), None, {}, 0.0
        stage.state, stage.message = state, str(event.get("message", ""))
        stage.seconds = event.get("seconds")
        stage.gpu_seconds += float(event.get("gpu_seconds", 0.0))

    @staticmethod
    def _advance(stage: Stage, part: str, event: dict[str, Any], time: float | None) -> None:
        stage.parts[part] = (event["done"], event["total"])
        if stage.state != "running" and event.get("event") in ("start", "progress"):
            stage.state, stage.since, stage.message = "running", time, ""
        if event.get("event") == "start":
            stage.fresh = stage.share or 0.0
        stage.seen = time
        if event.get("event") == "done":
            Status._end(stage, time)

    @staticmethod
    def _end(stage: Stage, time: float | None) -> None:
        stage.state = "done"
        stage.seconds = None if stage.since is None or time is None else round(time - stage.since, 1)


def as_cells(status: Status, now: float) -> list[tuple[str, ...]]:
    """Rows for a table: category, one short cell per verb, GPU seconds."""
    rows = []
    for category, stages in status.stages.items():
        cells = [_cell(stages.get(verb), now) for verb in STAGES]
        rows.append((category, *cells, f"{sum(stage.gpu_seconds for stage in stages.values()):.0f}"))
    return rows


def failures(status: Status) -> list[str]:
    """A line for every stage that failed."""
    return [
        f"{verb} {category}: {stage.message}"
        for category, stages in status.stages.items()
        for verb, stage in stages.items()
        if stage.state == "failed"
    ]


def _cell(stage: Stage | None, now: float) -> str:
    if stage is None or stage.state == "waiting":
        return "-"
    if stage.state == "done":
        return "done" if stage.seconds is None else f"done {spoken(stage.seconds)}"
    if stage.state == "failed":
        return "FAILED"
    share, left, quiet = stage.share, stage.left(now), stage.quiet(now)
    text = "running" if share is None else f"{100 * share:.0f} %"
    if quiet:
        return f"{text}, no progress for {spoken(quiet)}"
    return text if left is None else f"{text}, {spoken(left)} left"


def spoken(seconds: float) -> str:
    """A duration to read: ``42 s``, ``12 min``, ``3 h 05``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5940:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f}"
