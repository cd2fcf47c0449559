"""The endpoint in one process: the real application around the real sampler, no Ray."""

import base64
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from dhdiff_ray.data.writer import png_bytes
from dhdiff_ray.on_ray.api import BusyError, make_app, read_token
from dhdiff_ray.on_ray.sampler import Ask, RefusedError, SamplerCore
from dhdiff_ray.synthesis import plan

ASK = {"category": "mesh", "defect": "bent", "seed": 7}


class Here:
    """The sampler in this process, as a backend."""

    def __init__(self, core):
        self.core = core
        self.loaded = {}

    async def models(self):
        return self.core.models()

    async def pairs(self, ask):
        self.core.check(ask)
        if ask.category not in self.loaded:
            self.loaded[ask.category] = self.core.load(ask.category)
        return self.core.pairs(ask, self.loaded[ask.category])


@pytest.fixture(scope="module")
def core(trained_once, images, load_run):
    return SamplerCore(load_run(trained_once.parent, images, "trained", "synthesize.background=keep"))


@pytest.fixture(scope="module")
def client(core):
    return TestClient(make_app(Here(core)))


def png(array):
    return base64.b64encode(png_bytes(array)).decode()


def decoded(pair, name="image"):
    return np.array(Image.open(io.BytesIO(base64.b64decode(pair[name]))))


def asked(client, **fields):
    answer = client.post("/v1/pairs", json={**ASK, **fields})
    return answer.status_code, answer.json().get("pairs", answer.json().get("detail"))


def test_models_are_listed_with_what_can_be_asked(client):
    assert client.get("/healthz").json()["status"] == "ok"
    models = client.get("/v1/models").json()["models"]
    assert [m["category"] for m in models] == ["capsule", "mesh"]
    assert models[1]["defects"] == ["bent", "broken", "stain"]
    assert models[1]["max_n"] == 4


def test_the_same_question_has_the_same_bytes_alone_or_among_others(client):
    status, three = asked(client, n=3)
    assert status == 200
    assert [p["seed"] for p in three] == [7, 8, 9]
    assert asked(client, n=1, seed=8) == (200, [three[1]])
    assert decoded(three[0]).shape == (32, 32, 3)
    assert set(np.unique(decoded(three[0], "mask"))) <= {0, 255}
    assert three[0]["prompt"] == "a photo of a mesh with bent"


def test_a_runs_own_seed_asks_for_what_the_run_would_make(core):
    (first, *_) = plan(core.config, core.split, "mesh")
    ask = Ask(category="mesh", defect=first.defect, seed=first.seed)
    assert core.requests(ask) == [first]


def test_points_and_a_mask_of_their_cells_say_the_same(client):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 16:24] = 255
    _, drawn = asked(client, control_mask=png(mask))
    status, pointed = asked(client, points=[[20, 12]])
    assert status == 200
    assert drawn == pointed
    assert drawn != asked(client)[1]


def test_an_own_base_is_kept_outside_the_control_mask(client):
    base = np.full((64, 64, 3), (10, 200, 90), np.uint8)
    status, (pair,) = asked(client, base=png(base), points=[[63, 63]])
    assert status == 200
    assert pair["base"] is None
    assert np.abs(decoded(pair)[:16, :16].astype(int) - base[:16, :16]).max() <= 2


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"category": "mehs"}, 404, "no category 'mehs'; did you mean 'mesh'?; there are: capsule, mesh"),
        ({"defect": "bend"}, 404, "no defect 'bend'; did you mean 'bent'?"),
        ({"defect": "good"}, 404, "no defect 'good'"),
        ({"n": 5}, 422, "n = 5 is more than 4 pairs"),
        ({"n": 0}, 422, "n: Input should be greater than or equal to 1"),
        ({"seed": -1}, 422, "seed"),
        ({"sed": 1}, 422, "sed: Extra inputs are not permitted"),
        ({"points": [[32, 5]]}, 422, "point (32.0, 5.0) lies outside the 32 x 32 image"),
        ({"points": [["nan", 5]]}, 422, "point (nan, 5.0) lies outside"),
        ({"points": []}, 422, "points"),
        ({"base": "no png"}, 422, "base is not a PNG in base64"),
        ({"base": base64.b64encode(b"GIF89a").decode()}, 422, "base is not a PNG in base64"),
        ({"control_mask": png(np.zeros((8, 8), np.uint8))}, 422, "control_mask is empty"),
        ({"control_mask": png(np.ones((8, 8), np.uint8)), "points": [[1, 1]]}, 422, "give one of them"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_to_do(client, fields, status, words):
    code, detail = asked(client, **fields)
    assert code == status
    assert words in detail


def test_a_picture_that_unpacks_to_far_more_is_refused_unread(client):
    bomb = io.BytesIO()
    Image.new("1", (5000, 5000)).save(bomb, "PNG")
    status, detail = asked(client, base=base64.b64encode(bomb.getvalue()).decode())
    assert status == 422
    assert "at most 4096 a side" in detail


def test_with_a_token_only_health_is_open(core):
    client = TestClient(make_app(Here(core), token="t" * 20))
    assert client.get("/healthz").status_code == 200
    for header in ({}, {"Authorization": "Bearer no"}, {"Authorization": "t" * 20}, {"Authorization": "Bearer é"}):
        assert client.get("/v1/models", headers={k: v.encode() for k, v in header.items()}).status_code == 401
    assert client.post("/v1/pairs", json=ASK).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer " + "t" * 20}).status_code == 200


def test_a_full_queue_is_told_with_when_to_come_back(core):
    class Full(Here):
        async def pairs(self, ask):
            raise BusyError

    answer = TestClient(make_app(Full(core))).post("/v1/pairs", json=ASK)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "3"


def test_a_request_says_how_long_it_is_and_is_not_too_long(client):
    assert client.post("/v1/pairs", content=iter([b"{}"])).status_code == 411
    long = {"content-length": str(2**40)}
    assert client.post("/v1/pairs", content=b"{}", headers=long).status_code == 413


def test_a_short_token_is_no_token(tmp_path):
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(ValueError, match="has 5 characters; make one: openssl"):
        read_token(str(tmp_path / "token"))
    with pytest.raises(ValueError, match="cannot be read"):
        read_token(str(tmp_path / "none"))


def test_a_refusal_keeps_its_status_between_processes():
    import pickle

    refused = pickle.loads(pickle.dumps(RefusedError(404, "no")))
    assert (refused.status, refused.message) == (404, "no")
