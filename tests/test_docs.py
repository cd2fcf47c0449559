"""What README and docs promise: links that lead somewhere, commands that are understood, pages that are current."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main
from typer._click.exceptions import ClickException

from dhdiff_ray.cli.app import Commands, app
from dhdiff_ray.config.load import load_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = {"configuration.md", "cli.md", "api.md"}
"""Pages that are made from the code."""
NAMED = ("README.md", "CONTRIBUTING.md", "cluster/README.md", "jobs/README.md")
PAGES = sorted([*map(ROOT.joinpath, NAMED), *DOCS.glob("*.md"), *(ROOT / "benchmarks" / "results").glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
END = {">", "&", "|", "&&", ";", "..."}
"""Words of the shell that end a command."""


def name(path):
    return path.relative_to(ROOT).as_posix()


def anchors(path):
    """Anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text())
    heads = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for link in (one or other for one, other in LINK.findall(FENCE.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.is_file() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def commands(page):
    """Command lines of a page's blocks, with continued lines joined."""
    for language, block in FENCE.findall(page.read_text()):
        if language in ("bash", "console"):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                yield line.strip().removeprefix("$ ")


def mentions(page):
    """What a page's sentences name as code."""
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text())))


def ours(lines):
    """Words after ``dhdiff-ray`` of the command lines of ours."""
    for line in dict.fromkeys(lines):
        if line.startswith("dhdiff-ray "):
            words = shlex.split(line, comments=True)[1:]
            stop = next((at for at, word in enumerate(words) if word in END), len(words))
            yield words[:stop]


def understood(words):
    """What typer makes of a command line: the options of the command it names."""
    command = typer.main.get_command(app)
    context = command.make_context("dhdiff-ray", list(words))
    while hasattr(command, "commands"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        word, command, rest = command.resolve_command(context, rest)
        context = command.make_context(word, rest, parent=context)
    return context.params


def refusal(words):
    """Why a command line cannot be used, or nothing."""
    try:
        options = understood(words)
        load_config(sets=tuple(options.get("sets") or ()), preset=options.get("preset"), environ={})
    except typer.Exit:
        return ""  # --help
    except (ClickException, ValueError) as error:
        return f"dhdiff-ray {shlex.join(words)}: {type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_is_understood_and_its_knobs_are_there(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert [why for words in ours(commands(page)) if (why := refusal(words))] == []
    # A sentence may name a command without what it needs.
    named = [why for words in ours(mentions(page)) if (why := refusal(words))]
    assert [why for why in named if not re.search("Missing|NoArgs|requires an argument", why)] == []


def test_the_first_help_shows_lines_that_are_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(Commands.tour) >= 4
    assert [why for words in ours(Commands.tour) if (why := refusal(words))] == []


def test_a_wrong_command_line_is_noticed():
    for words in (["submit", "train", "--rot", "x"], ["submti"], ["data", "scan"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing"):
            understood(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_and_module_that_a_page_names_is_there(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [*commands(page), *mentions(page)]
    assert {m[1] for line in lines if (m := re.match(r"make ([a-z-]+)(?: |$)", line))} <= targets
    modules = {m[1] for line in lines if (m := re.match(r"python -m (benchmarks(?:\.\w+)?)", line))}
    assert all(
        (ROOT / module.replace(".", "/")).with_suffix(".py").exists() or module == "benchmarks" for module in modules
    )


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", [p for p in DOCS.glob("*.md") if p.name not in MADE], ids=name)
def test_no_page_is_longer_than_1500_words(page):
    assert len([word for word in page.read_text().split() if re.search(r"\w", word)]) <= 1500


def test_the_pages_made_from_the_code_are_current():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "site" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    made = generate.pages()
    assert set(made) == MADE
    assert [page for page, text in made.items() if (DOCS / page).read_text() != text] == [], "type: make docs-pages"


def test_every_page_is_in_the_sites_navigation():
    nav = str(tomllib.loads((DOCS / "site" / "zensical.toml").read_text())["project"]["nav"])
    assert [name(page) for page in DOCS.glob("*.md") if f"'docs/{page.name}'" not in nav] == []


def test_troubleshooting_quotes_the_programs_own_words():
    source = "".join(path.read_text() for path in sorted((ROOT / "dhdiff_ray").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    quoted = re.findall(r"^\| `([^`]+)`", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 40
    parts = [part.strip() for words in quoted for part in words.split("…")]
    assert [part for part in parts if part not in source] == []
