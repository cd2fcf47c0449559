"""The page on the architecture names rooms and files that are there, and every room there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_the_page_names_is_there():
    names = set(re.findall(r"`([a-z_]+/[a-z_/*]+\.(?:py|toml))`", PAGE))
    assert len(names) > 30
    assert not [name for name in names if not list((ROOT / "dhdiff_ray").glob(name))]


def test_every_room_has_a_sentence_on_the_page():
    rooms = {path.parent.name for path in (ROOT / "dhdiff_ray").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^\| `([a-z_]+)/` \|", PAGE, re.M))


def test_no_room_has_more_than_fifteen_files_but_the_one_whose_names_are_saved():
    counts = {path.parent: len(list(path.parent.glob("*.py"))) for path in (ROOT / "dhdiff_ray").rglob("__init__.py")}
    assert not {str(room) for room, count in counts.items() if count > (19 if room.name == "model" else 15)}


def test_no_file_is_longer_than_350_lines():
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / "dhdiff_ray").rglob("*.py")}
    assert not {str(path) for path, count in lines.items() if count > 350}
