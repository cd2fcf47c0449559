"""A cluster that stays: it wants its token, and taking it down leaves nothing of it and touches nothing else."""

import json
import stat
import subprocess
import sys
import time

import pytest

from dhdiff_ray.on_ray.cluster import standing
from dhdiff_ray.on_ray.cluster.checks import check_closed
from dhdiff_ray.on_ray.cluster.local import ClusterError


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_stands_where_nothing_was_started(own_state):
    assert standing.standing() is None
    assert standing.down() is None


def test_taking_down_one_that_died_clears_its_folder_and_spares_who_has_its_process_number_now(own_state, tmp_path):
    folder = tmp_path / "dhdiff-up-dead"
    folder.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        known = {"address": "http://127.0.0.1:1", "token_file": str(tmp_path / "token"), "folder": str(folder)}
        standing.state_folder().mkdir(parents=True)
        (standing.state_folder() / "cluster.json").write_text(json.dumps({**known, "pid": other.pid, "since": 0.0}))
        assert standing.down() is None
        assert not folder.exists()
        assert standing.standing() is None
        time.sleep(0.5)
        assert other.poll() is None, "it was not ours"
    finally:
        other.kill()
        other.wait()


@pytest.mark.ray
def test_a_standing_cluster_refuses_a_wrong_token_at_once_and_leaves_nothing(own_state, tmp_path):
    import httpx

    there = standing.up(num_cpus=1)
    try:
        assert standing.standing() == there
        assert stat.S_IMODE(there.token_file.stat().st_mode) == 0o600
        start = time.monotonic()
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert httpx.get(f"{there.address}/api/jobs/", headers=headers).status_code in (401, 403)
        token = {"Authorization": f"Bearer {there.token_file.read_text()}"}
        assert httpx.get(f"{there.address}/api/jobs/", headers=token).status_code == 200
        assert time.monotonic() - start < 10
        mode = httpx.get(f"{there.address}/api/authentication_mode").json()["authentication_mode"]
        check_closed("http://10.0.0.1:8265", mode)
        with pytest.raises(ClusterError, match="cluster down"):
            standing.up()
    finally:
        assert standing.down() == there
    assert not there.processes()
    assert not there.folder.exists()
    assert standing.standing() is None
