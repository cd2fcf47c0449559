"""Every private API of Ray that is used still does what it is used for: what fails here after an upgrade has moved."""

import inspect
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest

from dhdiff_ray.on_ray import ray_private


def test_an_address_that_is_written_down_is_the_one_that_ray_reads_in_that_folder(tmp_path):
    """Else a job's supervisor joins another cluster of the machine, and `submit` waits for a job that never starts."""
    from ray._private.utils import read_ray_address

    ray_private.write_cluster_address("127.0.0.1:6399", str(tmp_path))
    assert read_ray_address(str(tmp_path)) == "127.0.0.1:6399"


def test_a_nodes_agent_takes_any_free_port_while_asked_to_and_then_its_own_again():
    """Else the second private cluster on a machine comes up and accepts no job."""
    import ray
    from ray._private import parameter

    usual = parameter.RayParams().dashboard_agent_listen_port
    with ray_private.free_agent_port():
        assert parameter.RayParams().dashboard_agent_listen_port == 0
    assert parameter.RayParams().dashboard_agent_listen_port == usual != 0
    assert "ray._private.parameter.RayParams(" in inspect.getsource(ray.init), "where ray.init looks the class up"


def test_a_token_that_changes_in_the_environment_is_the_one_that_is_sent_from_then_on(monkeypatch):
    """Else a process that starts a second cluster is refused by it: it sends the first one's token."""
    import ray._raylet

    try:
        for token in ("a" * 64, "b" * 64):
            monkeypatch.setenv("RAY_AUTH_MODE", "token")
            monkeypatch.setenv("RAY_AUTH_TOKEN", token)
            ray_private.forget_token()
            headers = ray._raylet.AuthenticationTokenLoader.instance().get_token_for_http_header()
            assert token in str(headers)
    finally:
        monkeypatch.undo()
        ray_private.forget_token()


class Dashboard(BaseHTTPRequestHandler):
    """Answers as a cluster's head, and keeps what it was asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        content = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Quiet."""


def test_the_dashboard_is_asked_through_the_jobs_client():
    """Else neither another Ray on the cluster nor a cluster without a token is refused before a job is sent."""
    from ray.job_submission import JobSubmissionClient

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        client = JobSubmissionClient(f"http://127.0.0.1:{server.server_port}")
        answer = ray_private.dashboard_answer(client, "/api/authentication_mode")
        assert (answer.ok, answer.json()["ray_version"]) == (True, "2.60.0")
        assert Dashboard.asked[-1] == "/api/authentication_mode"
    finally:
        server.shutdown()
        server.server_close()


def test_ray_refuses_a_job_that_came_too_early_in_the_words_that_are_looked_for():
    """Else the first job of a cluster that has just come up fails on a busy machine."""
    source = Path(find_spec("ray.dashboard.modules.job.job_head").origin).read_text()
    (line,) = [line for line in source.splitlines() if "gent to submit job" in line]
    assert ray_private.is_without_agent(RuntimeError(line))
    assert not ray_private.is_without_agent(RuntimeError("no such job"))


def test_the_logs_that_are_kept_quiet_are_ray_modules():
    """Else each upload and each connection is told among the command's own lines."""
    assert all(find_spec(f"ray.{name}") for name in ray_private.SERVER_LOGS)


@pytest.mark.ray
def test_rows_of_a_data_set_come_each_as_a_dict_as_soon_as_its_block_is_done(two_cores):
    """Else pairs, scores and looks at files are made and never told."""
    from ray.data import from_items

    rows = ray_private.finished_rows(from_items([{"at": at} for at in range(5)], override_num_blocks=5))
    assert sorted(row["at"] for row in rows) == [0, 1, 2, 3, 4]
