"""The endpoint on a real cluster: up, answers as the sampler in this process does, full queues, down."""

import concurrent.futures
import json
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


@pytest.mark.ray
def test_up_asks_and_down(two_cores, trained, monkeypatch):
    config = trained()
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
        _streams(client, core)
        _stops_when_nobody_waits(client)
        _outlives_a_killed_replica(client, core, two_cores)
    with pytest.raises(ClusterError, match="serves a run already"):
        serve.up(config, port=0)
    serve.down()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/healthz", timeout=5, trust_env=False)


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
