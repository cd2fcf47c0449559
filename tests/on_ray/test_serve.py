"""The endpoint on a real cluster: up, answers as the sampler in this process does, full queues, down."""

import concurrent.futures

import httpx
import pytest

from dhdiff_ray.on_ray import serve
from dhdiff_ray.on_ray.cluster import ClusterError
from dhdiff_ray.on_ray.sampler import Ask, SamplerCore


def test_others_can_reach_it_only_with_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.TOKEN_FILE, raising=False)
    for host in ("127.0.0.1", "::1", "localhost"):
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


@pytest.mark.ray
def test_up_asks_and_down(two_cores, trained, monkeypatch):
    config = trained()
    url = serve.up(config, port=0, block=False)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        assert [m["category"] for m in client.get("/v1/models").json()["models"]] == ["capsule", "mesh"]
        core = SamplerCore(config)
        for category, defect in (("mesh", "bent"), ("capsule", "crack")):
            ask = {"category": category, "defect": defect, "seed": 3, "n": 2}
            answer = client.post("/v1/pairs", json=ask)
            assert answer.status_code == 200, answer.text
            assert answer.json()["pairs"] == core.pairs(Ask(**ask), core.load(category))
        wrong = client.post("/v1/pairs", json={"category": "mesh", "defect": "bend"})
        assert wrong.status_code == 404
        assert "did you mean 'bent'" in wrong.json()["detail"]

        ask = {"category": "mesh", "defect": "bent", "n": 4}
        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            codes = list(pool.map(lambda i: client.post("/v1/pairs", json={**ask, "seed": i}).status_code, range(60)))
        assert set(codes) == {200, 503}
    with pytest.raises(ClusterError, match="serves a run already"):
        serve.up(config, port=0, block=False)
    serve.down()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/healthz", timeout=5, trust_env=False)
