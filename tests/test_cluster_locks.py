"""What is installed is pinned by version and hash: on a machine, and in the image."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(
    r"^([a-z0-9-]+)==([^ ;]+)(?: ;[^\\]*)? \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
LOCKS = [(ROOT / name).read_text() for name in ("requirements.lock", "cluster/launchers.lock")]


def test_locks_hold_names_versions_and_hashes_and_nothing_else():
    for text in LOCKS:
        assert PINNED.findall(text)
        assert not PINNED.sub("", text).strip()


def test_what_both_hold_is_the_same():
    ours, launchers = ({name: (version, hashes) for name, version, hashes in PINNED.findall(text)} for text in LOCKS)
    shared = ours.keys() & launchers.keys()
    assert {"boto3", "protobuf", "requests"} <= shared
    assert {name: ours[name] for name in shared} == {name: launchers[name] for name in shared}


def test_the_installer_itself_comes_by_its_hash():
    """In an environment of one's own and in the image; the rest it checks for itself."""
    first = "awk '/^[^ ]/ {own = /^uv==/} own' requirements.lock"
    makefile, image = (ROOT / "Makefile").read_text(), (ROOT / "cluster" / "Dockerfile").read_text()
    assert first in makefile and first in image
    assert makefile.count("--require-hashes") == image.count("--require-hashes") == 1
    assert "--requirement /build/launchers.lock" in image
