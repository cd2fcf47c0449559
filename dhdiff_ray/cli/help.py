"""Groups and commands with plain help: options in sections, examples on lines of their own, fit for 80 columns.

Plain, because drawing boxes costs as much start-up time as all the rest.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import HelpFormatter

MANY = 10
"""A help with more options than this has sections."""
EXAMPLE = "Example: "
TYPES = {"str": "TEXT", "int": "N", "float": "NUMBER", "path": "PATH", "list": "TEXT"}
"""Words for what an option takes where it names none itself."""


def examples(text: str | None) -> list[str]:
    """The lines to type of a docstring: its paragraphs that begin with ``Example:``."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return [" ".join(p.split()).removeprefix(EXAMPLE) for p in paragraphs if p.startswith(EXAMPLE)]


class Command(TyperCommand):
    """A command; its help ends with its examples."""

    shown: ClassVar[tuple[str, ...]] = ()
    """Names of the options that its help has; all if empty."""

    def format_help_text(self, ctx: typer.Context, formatter: HelpFormatter) -> None:
        """The docstring without its examples."""
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(p for p in paragraphs if not p.startswith(EXAMPLE)))

    def format_options(self, ctx: typer.Context, formatter: HelpFormatter) -> None:
        """Arguments and options, in sections if they are many; then the examples."""
        sections: dict[str, list[tuple[str, str]]] = {}
        shown = [param for param in self.get_params(ctx) if not self.shown or param.name in self.shown]
        for param in shown:
            record = param.get_help_record(ctx)
            panel = (len(shown) > MANY and getattr(param, "rich_help_panel", None)) or "Options"
            if record:
                record = (plain(param.param_type_name, record[0]), record[1])
                sections.setdefault("Arguments" if param.param_type_name == "argument" else panel, []).append(record)
        sections["Options"] = sections.pop("Options")  # --json and --help come last
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        write_examples(formatter, examples(self.help))


class Group(TyperGroup):
    """A group of commands; its help has a line of each, in sections or with an example each."""

    sections: ClassVar[tuple[str, ...]] = ("Commands",)
    """Titles of the sections, in order."""
    tour: ClassVar[tuple[str, ...]] = ()
    """Lines to type that show the way through the sections."""

    def format_commands(self, ctx: typer.Context, formatter: HelpFormatter) -> None:
        """Commands with the first sentence of their help."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in self.sections}
        width = formatter.width - 6 - max(map(len, self.commands))
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None) or self.sections[0]
            sections[panel].append((name, command.get_short_help_str(width)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        if len(sections) > 1:
            write_examples(formatter, list(self.tour))
        else:
            write_examples(formatter, [line for c in self.commands.values() for line in examples(c.help)[:1]])


class _Tree(typer.Typer):
    """What makes its commands of our class."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, **{"cls": Command, **settings})


def group(name: str, text: str, cls: type[Group] = Group) -> typer.Typer:
    """A group of commands."""
    return _Tree(
        name=name,
        cls=cls,
        help=text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def plain(kind: str, record: str) -> str:
    """An option without the type system's words; an argument's name says it already."""
    if kind == "argument":
        return re.sub(r" <[^>]*>$", "", record)
    return re.sub(r"<([a-z]+)( range|\[str\])?>", lambda found: TYPES.get(found[1], found[0]), record)


def write_examples(formatter: HelpFormatter, lines: list[str]) -> None:
    """A section of lines to type, which are never folded."""
    if lines:
        with formatter.section("Example" if len(lines) == 1 else "Examples"):
            for line in lines:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
