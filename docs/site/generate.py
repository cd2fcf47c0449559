"""The pages that are made from the code: ``docs/configuration.md``, ``docs/cli.md`` and ``docs/api.md``.

``python docs/site/generate.py`` writes them; with ``--check`` it only says which are not current, and leaves with 1.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

DOCS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(DOCS.parent))
NOTE = "<!-- Made by docs/site/generate.py from the code; change it there. -->\n"
API: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Draw pairs", "dhdiff_ray.model.pipeline:DHDiffPipeline", ("__call__", "speed_up")),
    ("Draw pairs", "dhdiff_ray.model.outputs:DHDiffOutput", ()),
    ("Ask an endpoint", "dhdiff_ray.client:Client", ("models", "model", "pairs", "stream", "close")),
    ("Ask an endpoint", "dhdiff_ray.client:ServedPair", ()),
    ("Ask an endpoint", "dhdiff_ray.client:EndpointError", ()),
    ("Read real images", "dhdiff_ray.data.registry:open_dataset", ()),
    ("Read real images", "dhdiff_ray.data.registry:Dataset", ("categories", "scan", "instances", "example")),
    ("Read real images", "dhdiff_ray.data.registry:dataset", ()),
    ("Read real images", "dhdiff_ray.records:Sample", ()),
    ("Score images", "dhdiff_ray.scoring.folder:score_folder", ()),
    ("Configure", "dhdiff_ray.config.load:load_config", ()),
    ("Open a run", "dhdiff_ray.run.run:Run", ("stored",)),
    ("Place a real defect", "dhdiff_ray.pairs.placement:place", ()),
)
"""Section, object and those of its methods that are shown."""


def main(words: list[str]) -> int:
    """Write the pages, or say which are not current."""
    stale = [name for name, text in pages().items() if _differs(DOCS / name, text)]
    if "--check" in words:
        for name in stale:
            sys.stderr.write(f"docs/{name} is not current; type: make docs-pages\n")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(pages()[name])
    return 0


def pages() -> dict[str, str]:
    """File name -> text of each page."""
    return {"configuration.md": configuration(), "cli.md": command_line(), "api.md": api()}


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text() != text


# The configuration


def configuration() -> str:
    """Every knob by part, from the pydantic fields."""
    from dhdiff_ray.config.base import Rank
    from dhdiff_ray.config.load import presets
    from dhdiff_ray.config.schema import Config

    lines = [
        NOTE,
        "# Configuration",
        "",
        "Every knob of a run. Change one with `--set train.steps=60`, keep several in a recipe ([`jobs/`]"
        "(../jobs/README.md)), or set a variable such as `DHDIFF__TRAIN__STEPS=60`. Later ones win: preset, the run, "
        "recipe, variable, flag, `--set`. See what holds and where it comes from:",
        "",
        "```bash",
        "dhdiff-ray config show --preset tiny --origin",
        "```",
        "",
        "Knobs in **bold** are those that a user turns first. Those marked *research* are the method's own switches; a "
        "preset has set them. What the presets set stands [at the end](#what-the-presets-set).",
    ]
    for part, field in Config.model_fields.items():
        listed = get_origin(field.annotation) is tuple
        model: Any = get_args(field.annotation)[0] if listed else field.annotation
        says = f"`[[{part}]]` in a recipe, once for each. {_plain(field.description or '')} Each is: " if listed else ""
        lines += ["", f"## {part}", "", says + _plain(_first(model.__doc__)), "", "| knob | type | default | what |"]
        lines.append("|---|---|---|---|")
        for name, knob in model.model_fields.items():
            rank = next((m for m in knob.metadata if isinstance(m, Rank)), Rank.ordinary)
            key = f"`{part}.{name}`"
            key = f"**{key}**" if rank is Rank.first else f"{key} *research*" if rank is Rank.research else key
            kind = _cell(f"{_kind(knob.annotation)}{_bounds(knob.metadata)}")
            default = "needed" if knob.is_required() else _value(knob.get_default(call_default_factory=True))
            lines.append(f"| {key} | {kind} | {default} | {_cell(_plain(knob.description or ''))} |")
    lines += ["", "## What the presets set", "", *_preset_table(presets())]
    return "\n".join(lines) + "\n"


def _preset_table(names: list[str]) -> Iterator[str]:
    import tomllib
    from importlib import resources

    folder = resources.files("dhdiff_ray.config") / "presets"
    content = {name: tomllib.loads((folder / f"{name}.toml").read_text()) for name in names}
    keys = dict.fromkeys(f"{part}.{knob}" for c in content.values() for part, knobs in c.items() for knob in knobs)
    yield f"| knob | {' | '.join(f'`{name}`' for name in names)} |"
    yield f"|---|{'---|' * len(names)}"
    for key in keys:
        part, knob = key.split(".")
        values = [content[name].get(part, {}).get(knob) for name in names]
        yield f"| `{key}` | {' | '.join('' if v is None else _value(v) for v in values)} |"


def _kind(annotation: Any) -> str:
    """A type as a reader calls it."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in inside)
    if origin is tuple:
        one, *rest = inside
        return f"list of {_kind(one)}" if rest in ([], [Ellipsis]) else f"[{', '.join(_kind(i) for i in inside)}]"
    if origin is dict:
        return "table"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(annotation) or ("table" if hasattr(annotation, "model_fields") else str(annotation))


def _bounds(metadata: list[Any]) -> str:
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    given = [f"{sign} {getattr(m, word):g}" for m in metadata for word, sign in words.items() if hasattr(m, word)]
    return f", {', '.join(given)}" if given else ""


def _value(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(_value(v).strip('`') for v in value)}]`"
    return "" if value in ("", None) else f"`{value}`"


# The command line


def command_line() -> str:
    """Every command with its options and examples, from typer."""
    import typer.main

    from dhdiff_ray.cli.app import app

    root = typer.main.get_command(app)
    lines = [NOTE, "# Command line", "", "Every command has `--help` with an example, and `--json`.", ""]
    lines += [f"- [`dhdiff-ray {' '.join(path)}`](#{_anchor(path)}): {_says(c)}" for path, c in commands(root)]
    for path, command in commands(root):
        lines += ["", f"## dhdiff-ray {' '.join(path)}", "", *_described(command, path)]
    return "\n".join(lines) + "\n"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and command of every command that does something."""
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _anchor(path: tuple[str, ...]) -> str:
    return "-".join(("dhdiff-ray", *path))


def _says(command: Any) -> str:
    return _first(command.help)


def _described(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    import typer

    from dhdiff_ray.cli.help import EXAMPLE, examples, plain

    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    yield "\n\n".join(" ".join(p.split()) for p in paragraphs if not p.startswith(EXAMPLE))
    yield from ("", "```bash", *examples(command.help), "```", "")
    context = typer.Context(command, info_name=" ".join(("dhdiff-ray", *path)))
    yield from ("| option | what |", "|---|---|")
    shown = getattr(command, "shown", ()) or [param.name for param in command.get_params(context)]
    for param in command.get_params(context):
        record = param.get_help_record(context) if param.name in shown else None
        if record and param.name != "help":
            words = " ".join(plain(param.param_type_name, record[0]).split())
            yield f"| `{words}` | {_cell(' '.join(record[1].split()))} |"


# The Python API


def api() -> str:
    """Public classes and functions with their docstrings."""
    lines = [
        NOTE,
        "# Python API",
        "",
        "What a program may use. Images are uint8 arrays (h, w, 3) or PIL images, masks uint8 (h, w) with 0 and 255, "
        "unless a line says otherwise.",
    ]
    section = ""
    for title, place, methods in API:
        module, _, name = place.partition(":")
        thing = getattr(importlib.import_module(module), name)
        lines += ["", f"## {title}"] if title != section else []
        section = title
        lines += ["", f"### {name}", "", f"`from {module} import {name}`", ""]
        if inspect.isfunction(thing):
            lines += [*_signature(thing, name), ""]
        lines += _docstring(thing)
        for method in methods:
            function: Callable[..., Any] = inspect.unwrap(getattr(thing, method))
            shown = name if method == "__call__" else f"{name}.{method}"
            lines += ["", f"#### {'Calling it' if method == '__call__' else f'{name}.{method}'}", ""]
            lines += [*_signature(function, "pipeline" if method == "__call__" else shown), "", *_docstring(function)]
    return "\n".join(lines).rstrip() + "\n"


def _signature(function: Callable[..., Any], name: str) -> list[str]:
    """The call, one parameter a line where it is long."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
    words, starred = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            words, starred = [*words, "*"], True
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        words.append(f"{star}{p.name}" + ("" if p.default is p.empty else f"={_default(p.default)}"))
    line = f"{name}({', '.join(words)})"
    return ["```python", line, "```"] if len(line) <= 100 else ["```python", f"{name}(", *_folded(words), ")", "```"]


def _folded(words: list[str]) -> list[str]:
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) > 96:
            lines, line = [*lines, line], "   "
        line += f" {word},"
    return [*lines, line]


def _default(value: Any) -> str:
    """As the code has it; what stands for a function or the environment by its name."""
    if isinstance(value, str):
        return json.dumps(value)
    if callable(value):
        return "..."
    return "os.environ" if type(value).__name__ == "_Environ" else repr(value)


def _docstring(thing: Any) -> list[str]:
    """Google style as Markdown: sections in bold, what they list as a list."""
    lines: list[str] = []
    inside = False
    for line in inspect.cleandoc(thing.__doc__ or "").splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Yields|Attributes):", line):
            inside = True
            lines += [f"**{'Arguments:' if line == 'Args:' else line}**", ""]
        elif inside and re.match(r"    \S", line) and (found := re.match(r"    ([\w*]+): (.*)", line)):
            lines.append(f"- `{found[1]}`: {_plain(found[2])}")
        elif inside and line.startswith("        "):
            lines[-1] += " " + _plain(line.strip())
        else:
            inside = inside and not line.strip()
            lines.append(_plain(line.strip()))
    return lines


# Words


def _first(text: str | None) -> str:
    """The first sentence of a docstring."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _plain(text: str) -> str:
    """Docstring's marks as Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))
    return " ".join(text.split())


def _cell(text: str) -> str:
    """Fit for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
