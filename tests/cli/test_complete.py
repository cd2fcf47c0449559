"""The shell's completion, asked as a shell asks: by variables, in a process of its own."""

import os
import subprocess
import sys

import pytest

from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.split import make_split
from dhdiff_ray.run.folder import RunFolder

SCRIPT = "import sys; sys.argv = ['dhdiff-ray']; from dhdiff_ray.cli.app import main; main()"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a drawn dataset and two runs, of which one has a split."""
    home = tmp_path_factory.mktemp("home")
    generate(home / "drawn", resolution=16, seed=0)
    samples = open_dataset("procedural").scan(home / "drawn", ["capsule"])
    run = RunFolder(str(home / "runs" / "first"))
    run.write_json("split.json", make_split(samples, fraction=0.5, seed=0, root=home / "drawn").to_json())
    for name in ("first", "second"):
        RunFolder(str(home / "runs" / name)).write_json("config.json", {})
    return home


def offered(home, line):
    """What is offered at the end of a line."""
    words = line.split(" ")
    asked = {"_DHDIFF_RAY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | asked, cwd=home, capture_output=True, text=True, timeout=60
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("dhdiff-ray submit train --preset t", ["taef2", "tiny"]),
        ("dhdiff-ray data scan --dataset m", ["mpdd", "mvtec"]),
        ("dhdiff-ray report --run ", ["first", "second"]),
        ("dhdiff-ray report --storage nowhere --run ", []),
        ("dhdiff-ray data scan --dataset procedural --root drawn --category ", ["capsule", "mesh"]),
        ("dhdiff-ray submit synthesize --run first --category ", ["capsule"]),
        ("dhdiff-ray explain --run first --category capsule --defect s", ["squeeze"]),
        ("dhdiff-ray explain --run second --defect ", []),
    ],
)
def test_tab_offers_what_is_there(home, line, names):
    assert offered(home, line) == names
