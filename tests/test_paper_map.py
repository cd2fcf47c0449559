"""Each equation of the paper has exactly one home, and the map in docs/paper.md points at it."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@functools.cache
def homes():
    """Equation number -> places (file, class or function) whose docstring begins with it, or lists it."""
    found: dict[int, list[str]] = {}
    for file in sorted((ROOT / "dhdiff_ray").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                opening = (ast.get_docstring(node) or "").splitlines()[:1]
                opening = "".join(opening).split(":")[0]
                for number in re.findall(r"\bEq\. (\d)", opening):
                    found.setdefault(int(number), []).append(f"{file.relative_to(ROOT).as_posix()}:{node.name}")
    return found


@pytest.mark.parametrize("number", range(1, 9))
def test_every_equation_has_exactly_one_home(number):
    assert len(homes().get(number, [])) == 1


@pytest.mark.parametrize("number", range(1, 9))
def test_the_map_of_the_docs_points_at_the_home_of_every_equation(number):
    file, name = homes()[number][0].split(":")
    rows = [line for line in (ROOT / "docs" / "paper.md").read_text().splitlines() if line.startswith("| Eq. ")]
    row = next(r for r in rows if re.search(rf"\b{number}\b", r.split("|")[1]))
    assert file in row
    assert name in row
