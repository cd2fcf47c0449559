"""Build the site, with the packages of ``requirements.txt`` beside this file: ``make docs``.

The pages lie in the site as they do in the repository, so that one link works in both. A broken link fails the build.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "docs"
PAGES = ("*.md", "docs/*.md", "docs/*.png", "docs/*.svg", "docs/site/*.css", "cluster/README.md", "jobs/README.md")
PAGES += ("benchmarks/results/*.md", "LICENSE")


def main() -> int:
    """Copy what the site is made of, and build it."""
    pages = BUILD / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    for file in sorted({file for pattern in PAGES for file in ROOT.glob(pattern)}):
        copy = pages / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    shutil.copyfile(Path(__file__).with_name("zensical.toml"), BUILD / "zensical.toml")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=BUILD, check=False)
    if not done.returncode:
        sys.stdout.write(f"{BUILD / 'site' / 'index.html'}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
