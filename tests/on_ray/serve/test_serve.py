"""The endpoint on a real cluster: up, answers as the sampler in this process does, full queues, down."""

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from dhdiff_ray.config import ServeConfig
from dhdiff_ray.on_ray.cluster.local import ClusterError
from dhdiff_ray.on_ray.serve import replicas
from dhdiff_ray.on_ray.serve import up as serve
from dhdiff_ray.serving.questions import PairQuery
from dhdiff_ray.serving.responses import as_json
from dhdiff_ray.serving.sampler import SamplerCore

ROOT = Path(__file__).resolve().parents[3]


def drawn_here(core, **query):
    return [as_json(pair) for pair in core.pairs(PairQuery(**query))]


def test_others_can_reach_it_only_with_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.TOKEN_FILE, raising=False)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert serve.checked_token(host) == ""
    for host in ("0.0.0.0", "10.0.0.7", "example.org"):
        with pytest.raises(ValueError, match="a token is needed: openssl"):
            serve.checked_token(host)
    file = tmp_path / "token"
    file.write_text("t" * 32)
    file.chmod(0o600)
    monkeypatch.setenv(serve.TOKEN_FILE, str(file))
    assert serve.checked_token("0.0.0.0") == str(file)


def test_a_run_without_models_is_refused_before_anything_starts(configure):
    with pytest.raises(ValueError, match="is not a trained run; train first"):
        serve.up(configure("nothing"))


@pytest.mark.parametrize("file", ["jobs/serve.yaml", "cluster/kuberay/rayservice.yaml"])
def test_serves_own_files_name_what_there_is(file, trained, monkeypatch):
    described = yaml.safe_load((ROOT / file).read_text())
    if described.get("kind") == "RayService":
        described = yaml.safe_load(described["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(described)
    (application,) = schema.applications
    assert application.import_path == "dhdiff_ray.on_ray.serve.replicas:app"
    config = trained()
    here = {**application.args, "storage": config.run.storage, "run": config.run.name}
    monkeypatch.delenv(serve.TOKEN_FILE, raising=False)
    assert replicas.app({**here, "public": False}) is not None
    with pytest.raises(ValueError, match="a token is needed"):
        replicas.app({**here, "public": True})
    with pytest.raises(ValueError, match="there is no run"):
        replicas.app({**here, "run": "nothing"})


def test_samplers_are_counted_or_scaled():
    counted = replicas._number(ServeConfig(replicas=2, surge_percent=50))
    assert counted == {"num_replicas": 2, "max_surge_percent": 50}
    scaling = replicas._number(ServeConfig(replicas=0, max_replicas=3))["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["initial_replicas"], scaling["max_replicas"]) == (0, 1, 3)
    with pytest.raises(ValueError, match="leaves nobody to answer"):
        ServeConfig(replicas=0)


def test_what_serve_is_told_of_a_category_is_plain_letters_of_one_length():
    labels = {replicas.label_of(name) for name in ("mesh", "é", "🔩", "a b", "\udcff", "x" * 200)}
    assert len(labels) == 6
    assert all(len(label) == 16 and label.isascii() and label.isalnum() for label in labels)


@pytest.mark.ray
def test_sigterm_ends_the_command_soon_and_without_a_warning(trained, tmp_path):
    """Longer than it takes to drain: Serve's own shutdown takes half a minute and warns."""
    config = trained()
    line = [sys.executable, "-m", "dhdiff_ray", "serve", "up", "--run", "trained", "--port", "0"]
    with (tmp_path / "told").open("w") as told:
        command = subprocess.Popen(
            [*line, "--storage", config.run.storage], stdout=subprocess.PIPE, stderr=told, text=True, cwd=tmp_path
        )
        try:
            url = command.stdout.readline().strip()
            ready = httpx.get(f"{url}/readyz", timeout=60, trust_env=False).json()
            command.send_signal(signal.SIGTERM)
            start = time.monotonic()
            code = command.wait(60)
            seconds = time.monotonic() - start
        finally:
            command.kill()
            command.wait()
            command.stdout.close()
    assert (ready, code) == ({"status": "ready", "models": 2}, 130)
    assert seconds < 30  # 7 s beside other work; 38 s with Serve's own shutdown
    words = (tmp_path / "told").read_text().lower()
    assert not [word for word in ("warn", "error", "fail", "raylet", "traceback") if word in words], words


@pytest.mark.ray
def test_up_asks_and_down(two_cores, trained, monkeypatch):
    config = trained("serve.header_seconds=2")
    url = serve.up(config, port=0)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        assert [m["category"] for m in client.get("/v1/models").json()["models"]] == ["capsule", "mesh"]
        core = SamplerCore(config)
        for category, defect in (("mesh", "bent"), ("capsule", "crack")):
            ask = {"category": category, "defect": defect, "seed": 3, "n": 2}
            answer = client.post("/v1/pairs", json=ask)
            assert answer.status_code == 200, answer.text
            assert answer.json()["pairs"] == drawn_here(core, **ask)
        wrong = client.post("/v1/pairs", json={"category": "mesh", "defect": "bend"})
        assert wrong.status_code == 404
        assert "did you mean 'bent'" in wrong.json()["detail"]

        ask = {"category": "mesh", "defect": "bent", "n": 4}
        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            codes = list(pool.map(lambda i: client.post("/v1/pairs", json={**ask, "seed": i}).status_code, range(60)))
        assert set(codes) == {200, 503}
        _odd_names_trouble_nobody(client)
        _half_a_request_is_closed(url)
        _streams(client, core)
        _stops_when_nobody_waits(client)
        _outlives_a_killed_replica(client, core, two_cores)
    with pytest.raises(ClusterError, match="serves a run already"):
        serve.up(config, port=0)
    serve.down()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/healthz", timeout=5, trust_env=False)


def _odd_names_trouble_nobody(client):
    odd = ("%C3%A9", "%C3%A8", "%C3%AA", "%F0%9F%94%A9", "%ff%fe", "a%20b", "x" * 199)
    for name in odd:
        for way in ("pairs", "pairs:stream"):
            assert client.post(f"/v1/categories/{name}/{way}", json={"defect": "bent"}).status_code == 404
    assert client.post("/v1/pairs", json={"category": "", "defect": "bent"}).status_code == 422
    for category, defect in (("mesh", "bent"), ("capsule", "crack")) * 2:
        assert client.post("/v1/pairs", json={"category": category, "defect": defect}).status_code == 200


def _half_a_request_is_closed(url):
    address = url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def _streams(client, core):
    ask = {"defect": "bent", "seed": 3, "n": 2}
    with client.stream("POST", "/v1/categories/mesh/pairs:stream", json=ask) as answer:
        events = [json.loads(line) for line in answer.iter_lines()]
    pairs = {event["index"]: event["pair"] for event in events if event["event"] == "pair"}
    assert [pairs[0], pairs[1]] == drawn_here(core, category="mesh", **ask)
    assert [event["event"] for event in events].count("progress") == 4


def _stops_when_nobody_waits(client):
    short, long = ({"category": "mesh", "defect": "bent", **more} for more in ({}, {"n": 16, "steps": 200}))
    start = time.monotonic()
    assert client.post("/v1/pairs", json=short).status_code == 200
    alone = time.monotonic() - start
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/pairs", json=long, timeout=0.5)
    late = client.post("/v1/pairs", json=long, headers={"X-Deadline-Seconds": "0.5"})
    assert late.status_code == 504
    start = time.monotonic()
    assert client.post("/v1/pairs", json=short).status_code == 200
    assert time.monotonic() - start < max(5, 20 * alone)  # the two above together take 800 times as long


def _outlives_a_killed_replica(client, core, cluster):
    ask = {"category": "mesh", "defect": "bent", "seed": 9}
    (replica,) = [p for p in cluster.processes() if "Sampler" in p.name() or "Sampler" in " ".join(p.cmdline())]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.post, "/v1/pairs", json={**ask, "steps": 20}) for _ in range(8)]
        time.sleep(0.3)
        replica.kill()
        assert {answer.result().status_code for answer in asked} <= {200, 503}
    while (answer := client.post("/v1/pairs", json=ask)).status_code == 503:
        time.sleep(0.2)
    assert answer.json()["pairs"] == drawn_here(core, **ask)
