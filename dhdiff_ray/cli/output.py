"""The only file that prints: data on stdout, words for people on stderr.

Not in the paper. Decided: with ``--json`` stdout holds one JSON document, errors included; bars are drawn on a terminal
only, anything else gets a plain line now and then; colours follow ``NO_COLOR`` (Rich does that by itself).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from dhdiff_ray.run.status import STAGES, Status, as_cells

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_SECONDS = 10.0
"""How often a category tells its progress where no bar can be drawn."""

TURNED = 5
"""A table of so many rows at most is turned on its side where it is too wide."""
COLUMNS = ("category", *STAGES, "GPU s")


class Output:
    """Where a command's words and data go."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout

    @cached_property
    def people(self) -> Console:
        """Rich's console on stderr; made when first needed, since importing Rich takes time."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, markup=False)

    def note(self, text: str, style: str = "") -> None:
        """Say something to a person."""
        self.people.print(text, style=style, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say something that a person should see to."""
        self._labelled("warning:", "yellow", text)

    def fail(self, text: str, code: int, **fields: object) -> None:
        """Say why the command ends; with ``--json`` also as the document on stdout."""
        self._labelled("error:", "bold red", text)
        if self.as_json:
            self._document({"error": text, "exit_code": code, **fields})

    def data(self, value: object, *, text: str | None = None, table: Table | None = None) -> None:
        """The command's result: the value with ``--json``, else the text or the table."""
        if self.as_json:
            self._document(value)
        elif table is not None:
            from rich.console import Console

            Console(highlight=False, file=self._stdout).print(table)
        elif text is not None:
            self._write(text)

    def _labelled(self, label: str, style: str, text: str) -> None:
        from rich.text import Text

        if self.people.is_terminal:
            text = in_lines(text, self.people.width, len(label) + 1)
        self.people.print(Text.assemble((label, style), " ", text), soft_wrap=True)

    def _document(self, value: object) -> None:
        self._write(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def _write(self, text: str) -> None:
        self._stdout.write(text if text.endswith("\n") else text + "\n")
        self._stdout.flush()


V = TypeVar("V", bound="View")


class View:
    """Draws a job's events while it is open; on a terminal with something of Rich's that renews itself."""

    live: Any = None

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self: V) -> V:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()


class ProgressView(View):
    """One bar per category on a terminal, one line per category and 10 s elsewhere."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._bars: dict[tuple[str, str], Any] = {}
        self._printed: dict[tuple[str, str], float] = {}
        if output.people.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

            counts = (BarColumn(bar_width=30), MofNCompleteColumn(), "{task.fields[note]}", TimeElapsedColumn())
            self.live = Progress("{task.description}", *counts, "left", TimeRemainingColumn(), console=output.people)

    def event(self, event: dict[str, Any]) -> None:
        """Draw one event; kinds it does not know are left to the log."""
        kind = event.get("event")
        if event.get("total") and "done" in event:
            self._advance(event)
        elif kind in ("failed", "warning"):
            where = f"{event['category']}: " if event.get("category") else ""
            self._output.warn(f"{where}{event.get('message', 'failed')}")
        elif kind == "verdict":
            self._output.note(str(event["message"]))
        elif kind == "metric":
            hidden = ("event", "verb", "time")
            self._output.note("  " + " ".join(f"{k}={_short(v)}" for k, v in event.items() if k not in hidden))

    def _advance(self, event: dict[str, Any]) -> None:
        verb, category = str(event.get("verb", "")), str(event.get("category", ""))
        note = f"loss {_short(event['loss'])}" if event.get("loss") is not None else str(event.get("note", ""))
        done, total = event["done"], event["total"]
        if self.live:
            if (verb, category) not in self._bars:
                self._bars[verb, category] = self.live.add_task(f"{verb} {category}", total=total, note=note)
            self.live.update(self._bars[verb, category], completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if self._printed.get((verb, category)) == float("inf"):
            return  # its end was printed
        if done >= total or now - self._printed.get((verb, category), 0.0) >= PLAIN_SECONDS:
            self._printed[verb, category] = float("inf") if done >= total else now
            self._output.note(f"{verb} {category} {done}/{total} {note}".rstrip())


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
        elif event.get("event") == "verdict":
            self._output.note(str(event["message"]))
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


def in_lines(text: str, width: int, taken: int = 0) -> str:
    """A long message in lines that fit: a line for each sentence or part of one, folded between words.

    A part with something to type stays whole, so that it can be copied.

    Args:
        text: the message.
        width: of the terminal.
        taken: characters that stand before it in its first line.
    """
    import re
    import textwrap

    if len(text) + taken <= width:
        return text
    lines: list[str] = []
    for part in re.split(r"; |(?<=\.) (?=[A-Z])", text):
        indent = "  " if lines else " " * taken
        if "dhdiff-ray " in part or "--" in part:
            lines.append(indent + part)
        else:
            folded = textwrap.wrap(part, width, initial_indent=indent, subsequent_indent="  ", break_long_words=False)
            lines += folded or [indent]
    return "\n".join(lines)[taken:]


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A Rich table of short values.

    Where the terminal is narrow the lines between columns go first. Then a table of few rows is turned on its side: a
    line per column. Only then a word is folded; none is ever cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    cells = [[*map(_short, row), *[""] * (len(columns) - len(row))] for row in rows]
    least, room = _widths(columns, cells), Console().width
    tight = sum(least) + 3 * len(columns) + 1 > room
    if tight and sum(least) + 2 * len(columns) > room and 0 < len(cells) <= TURNED:
        columns, *cells = ([str(word) for word in line] for line in zip(columns, *cells, strict=True))
    room -= 2 * len(columns) if tight else 3 * len(columns) + 1
    made = Table(
        *(
            Column(name, overflow="fold", width=width)
            for name, width in zip(columns, _fitted(columns, cells, room), strict=True)
        ),
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD if tight else box.HEAVY_HEAD,
        show_edge=not tight,
        pad_edge=not tight,
        padding=(0, 1, 0, 0) if tight else (0, 1),
    )
    for row in cells:
        made.add_row(*map(Text, row))
    return made


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], whole: bool = False) -> list[int]:
    """Characters that each column needs so that no word is folded; ``whole``: so that no cell is."""
    parts = (
        (word for cell in column for word in ([cell] if whole else cell.split()))
        for column in zip(columns, *rows, strict=True)
    )
    return [max(map(len, words), default=0) for words in parts]


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int] | list[None]:
    """Widths in which every word is whole, cells too as far as there is room; Rich's own choice if words do not fit."""
    widths = _widths(columns, rows)
    if sum(widths) > room:
        return [None] * len(widths)
    for at, wanted in enumerate(_widths(columns, rows, whole=True)):
        widths[at] += min(wanted - widths[at], room - sum(widths))
    return widths


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
