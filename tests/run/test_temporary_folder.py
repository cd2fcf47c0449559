"""A temporary folder whose disk is full is told with what to do."""

import errno
import os
import subprocess
import tempfile

import pytest

from dhdiff_ray.run.folder import temporary_folder


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """Temporary folders lie on a disk of 64 KiB."""
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_temporary_folder_is_named_with_what_to_set(small_disk):
    words = f"{small_disk} is full; make room there, or set TMPDIR"
    with pytest.raises(OSError, match=words) as full, temporary_folder() as folder:
        (folder / "weights").write_bytes(bytes(200_000))
    assert full.value.errno == errno.ENOSPC
    assert not list(small_disk.iterdir())


def test_a_full_disk_elsewhere_is_told_as_it_is():
    with pytest.raises(OSError, match="/runs/first"), temporary_folder():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/first")
