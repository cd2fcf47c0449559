"""The table of a job: category by stage, alive while it is followed, or once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dhdiff_ray.cli.output import Output, View, table
from dhdiff_ray.run.status import STAGES, Status, as_cells

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("category", *STAGES, "GPU s")


class StatusView(View):
    """The events of a whole line: a table that renews itself on a terminal, one line per change elsewhere."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.status = Status()
        self._printed: dict[tuple[str, str], str] = {}
        if output.people.is_terminal:
            from rich.live import Live

            table = lambda: status_table(self.status)  # noqa: E731
            self.live = Live(get_renderable=table, console=output.people, refresh_per_second=2)

    def event(self, event: dict[str, Any]) -> None:
        """Take one event in and draw what it changes."""
        self.status.read(event)
        if event.get("event") in ("warning", "failed"):
            where = f"{event.get('verb', '')} {event['category']}: " if event.get("category") else ""
            self._output.warn(f"{where}{event.get('message', 'failed')}")
        elif event.get("event") == "page":
            self._output.note(f"page: {event['place']}")
        elif event.get("event") == "stage" and not self.live:
            key, state = (str(event["category"]), str(event["verb"])), str(event["state"])
            if state != "waiting" and self._printed.get(key) != state:
                self._printed[key] = state
                spent = f" in {event['seconds']} s" if event.get("seconds") is not None else ""
                self._output.note(f"{event['verb']} {event['category']} {state}{spent}")


def status_table(status: Status) -> Table:
    """Category by stage."""
    return table("", COLUMNS, as_cells(status, time.time()))
