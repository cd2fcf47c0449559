"""The endpoint in one process: the real application around the real sampler, no Ray."""

import asyncio
import base64
import io
import json
import random
import time
import zipfile
from collections import OrderedDict
from dataclasses import replace
from email.parser import BytesParser

import numpy as np
import pytest
from drawings import random_drawing
from fastapi.testclient import TestClient
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.regions import drawn_control
from dhdiff_ray.pairs.make import make
from dhdiff_ray.pairs.plan import plan
from dhdiff_ray.run.run import Run
from dhdiff_ray.serving import catalogue
from dhdiff_ray.serving.access import Access
from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.catalogue import Catalogue
from dhdiff_ray.serving.questions import BusyError, PairQuery, RefusedError
from dhdiff_ray.serving.sampler import SamplerCore
from dhdiff_ray.serving.service import Service
from dhdiff_ray.training.checkpoint import model_facts

ASK = {"category": "mesh", "defect": "bent", "seed": 7}


@pytest.fixture(scope="module")
def core(served_config):
    return SamplerCore(served_config)


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
    assert models[1]["max_n"] == 16


def test_the_same_question_has_the_same_bytes_alone_or_among_others(client):
    status, three = asked(client, n=3)
    assert status == 200
    assert [p["seed"] for p in three] == [7, 8, 9]
    assert asked(client, n=1, seed=8) == (200, [three[1]])
    assert decoded(three[0]).shape == (32, 32, 3)
    assert set(np.unique(decoded(three[0], "mask"))) <= {0, 255}
    assert three[0]["prompt"] == "a photo of a mesh with bent"


def test_a_runs_own_seed_asks_for_what_the_run_would_make(core):
    (first, *_) = plan(core.config, core.catalogue.run.split, "mesh")
    (order,) = core.orders(PairQuery(category="mesh", defect=first.defect, seed=first.seed))
    assert order.request == first


def test_a_start_from_the_reference_is_the_pair_that_the_library_makes(core, client):
    config = core.config.model_copy(
        update={"synthesize": core.config.synthesize.model_copy(update={"start": "reference", "strength": 0.5})}
    )
    said = {"start": "reference", "strength": 0.5, "n": 2}
    requests = [order.request for order in core.orders(PairQuery(**ASK, **said))]
    size = core.config.serve.max_batch_size
    filled = [*requests, *[requests[-1]] * (size - len(requests))]
    made = make(filled, core.load("mesh"), config, core.catalogue.samples.values())
    status, pairs = asked(client, **said)
    assert status == 200
    for pair, own in zip(pairs, made, strict=False):
        np.testing.assert_array_equal(decoded(pair), own.image)
        np.testing.assert_array_equal(decoded(pair, "mask"), own.mask)
    status, told = asked(client, start="reference", reference=png(RED), points=[[4, 4]])
    assert (status, "needs reference_mask" in told) == (422, True)


def test_points_and_a_mask_of_their_cells_say_the_same(client):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 16:24] = 255
    _, drawn = asked(client, control_mask=png(mask))
    status, pointed = asked(client, points=[[20, 12]])
    assert status == 200
    assert drawn == pointed
    assert drawn != asked(client)[1]


def test_what_is_drawn_by_hand_is_the_control_mask_that_the_data_make_of_it(client):
    large, small = (np.full((*size, 3), 90, np.uint8) for size in ((48, 64), (32, 32)))
    grid = client.get("/v1/models/mesh").json()["grid"]
    for seed in range(3):
        points, boxes = random_drawing(random.Random(seed), 64, 48)
        for field, drawing in (("points", points), ("boxes", boxes)):
            if drawing:
                control = drawn_control(*((drawing, []) if field == "points" else ([], drawing)), 32, grid, (64, 48))
                status, drawn = asked(client, base=png(large), **{field: drawing})
                assert status == 200
                assert drawn == asked(client, base=png(small), control_mask=png(control))[1]


def test_an_own_base_is_kept_outside_the_control_mask(client):
    base = np.full((64, 64, 3), (10, 200, 90), np.uint8)
    status, (pair,) = asked(client, base=png(base), points=[[63, 63]])
    assert status == 200
    assert pair["base"] is None
    assert np.abs(decoded(pair)[:16, :16].astype(int) - base[:16, :16]).max() <= 2


POST = "/v1/categories/mesh/pairs"


def test_a_model_tells_its_defects_size_licence_scores_and_limits(client):
    told = client.get("/v1/models/mesh").json()
    assert told["defects"] == ["bent", "broken", "stain"]
    assert told["resolution"] == 32
    assert told["bases"] == 3
    assert set(told["references"]) == set(told["defects"])
    assert told["defaults"]["steps"] == 2
    assert told["limits"]["max_steps"] == 200
    assert told["scores"] == []
    assert len(told["weights_sha256"]) == 64


def test_a_normal_image_can_be_seen_and_asked_for_by_its_number(client):
    seen = client.get("/v1/models/mesh/bases/1")
    assert seen.headers["content-type"] == "image/png"
    numbered = client.post(POST, json={"defect": "bent", "base_number": 1, "points": [[2, 2]]}).json()["pairs"][0]
    sent = client.post(
        POST, json={"defect": "bent", "base": base64.b64encode(seen.content).decode(), "points": [[2, 2]]}
    )
    assert sent.json()["pairs"][0]["image"] == numbered["image"]
    assert client.get("/v1/models/mesh/bases/3").status_code == 404


def test_the_old_address_and_the_new_say_the_same(client):
    body = {"defect": "bent", "seed": 4}
    assert client.post(POST, json=body).content == client.post("/v1/pairs", json={**body, "category": "mesh"}).content


def test_a_form_with_files_says_the_same_as_json(client):
    mask, base = np.zeros((40, 40), np.uint8), np.full((40, 40, 3), 90, np.uint8)
    mask[5:15, 5:15] = 255
    said = {"defect": "bent", "seed": 3, "n": 2, "boxes": [[5, 5, 15, 15]]}
    in_json = client.post(POST, json={**said, "base": png(base)})
    form = {"defect": "bent", "seed": "3", "n": "2"}
    drawn = client.post(POST, data=form, files={"base": png_bytes(base), "control_mask": ("../x", png_bytes(mask))})
    boxed = client.post(POST, data={**form, "boxes": "[[5,5,15,15]]"}, files={"base": png_bytes(base)})
    assert in_json.status_code == 200, in_json.text
    assert drawn.content == boxed.content == in_json.content


def test_zip_and_multipart_hold_the_same_pngs_as_json(client):
    body = {"defect": "bent", "seed": 5, "n": 2}
    pairs = client.post(POST, json=body).json()["pairs"]
    packed = client.post(POST, json={**body, "response": "zip"})
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    assert archive.read("mesh_bent_6_mask.png") == base64.b64decode(pairs[1]["mask"])
    assert len(archive.read("metadata.jsonl").splitlines()) == 2
    assert client.post(POST, json=body, headers={"accept": "application/zip"}).content == packed.content
    mixed = client.post(POST, json=body, headers={"accept": "multipart/mixed"})
    told = BytesParser().parsebytes(
        b"Content-Type: " + mixed.headers["content-type"].encode() + b"\r\n\r\n" + mixed.content
    )
    about, image, *_ = told.get_payload()
    assert [row["seed"] for row in json.loads(about.get_payload())["pairs"]] == [5, 6]
    assert base64.b64decode(pairs[0]["image"]) in mixed.content
    assert image.get_content_type() == "image/png"


MASK = np.zeros((32, 32), np.uint8)
MASK[4:9, 4:9] = 255
RED = np.full((32, 32, 3), (250, 20, 20), np.uint8)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a photo of a mesh with broken", "defect": None},
        {"reference": png(RED), "reference_mask": png(MASK)},
        {"reference_number": 0, "seed": 8},
        {"steps": 3},
        {"guidance": 4.0},
        {"strength": 0.5},
        {"start": "reference"},
        {"start": "reference", "strength": 0.8, "reference": png(RED), "reference_mask": png(MASK)},
    ],
    ids=lambda fields: "+".join(fields),
)
def test_each_wish_changes_the_pair(client, fields):
    status, pairs = asked(client, **fields)
    assert status == 200, pairs
    assert pairs[0]["image"] != asked(client)[1][0]["image"]


def test_a_stream_tells_progress_and_the_same_pairs(client):
    body = {"defect": "bent", "seed": 5, "n": 2, "steps": 3}
    with client.stream("POST", POST + ":stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        events = [json.loads(line) for line in answer.iter_lines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "queued"
    assert kinds[-1] == "done"
    assert [e["done"] for e in events if e["event"] == "progress" and e["pair"] == 0] == [1, 2, 3]
    pairs = [e["pair"] for e in sorted((e for e in events if e["event"] == "pair"), key=lambda e: e["index"])]
    assert pairs == client.post(POST, json=body).json()["pairs"]
    refused = client.post(POST + ":stream", json={"defect": "bend"})
    assert (refused.status_code, refused.json()["status"]) == (404, 404)


def test_previews_show_a_pair_coming_and_change_no_byte_of_it(served_config):
    config = served_config.model_copy(update={"serve": served_config.serve.model_copy(update={"preview_share": 1.0})})
    body = {"defect": "bent", "seed": 5, "n": 2, "steps": 6, "boxes": [[8, 8, 16, 16]], "base_number": 0}
    with TestClient(make_app(Service(config)), "http://localhost") as client:
        plain, looked = (
            [json.loads(line) for line in client.post(POST + ":stream", json={**body, **more}).text.splitlines()]
            for more in ({}, {"previews": True})
        )
        base = np.array(Image.open(io.BytesIO(client.get("/v1/models/mesh/bases/0").content)))
    seen = [event for event in looked if event["event"] == "preview"]
    assert [event for event in looked if event["event"] != "preview"] == plain
    assert {event["pair"] for event in seen} == {0, 1}
    assert all(0 < event["done"] < event["total"] == 6 for event in seen)
    assert len({event["image"] for event in seen}) == len(seen)
    image, mask = decoded(seen[-1]), decoded(seen[-1], "mask")
    outside = np.ones((32, 32), bool)
    outside[8:16, 8:16] = False
    assert np.array_equal(image[outside], base[outside])
    assert not np.array_equal(image, base)
    assert not mask[outside].any()


def test_looking_takes_no_more_than_its_share_of_the_time(core, monkeypatch):
    """Twenty-four quick steps, and a decoding that takes longer than several of them."""
    (order,) = core.orders(PairQuery(category="mesh", defect="bent", steps=24, previews=True))
    load, looks = core.load, []

    def slow(category):
        pipeline = load(category)
        decode = pipeline.decode_latents
        pipeline.decode_latents = lambda latents: time.sleep(0.3) or decode(latents)
        return pipeline

    monkeypatch.setattr(core, "load", slow)
    monkeypatch.setattr(core, "_held", OrderedDict())
    start = time.monotonic()
    core.draw([order], lambda *what: looks.append(what[2]))
    drawing = time.monotonic() - start
    assert len(looks) == 24
    assert 1 <= sum(look is not None for look in looks) <= 2 + 0.1 * drawing / 0.3


def test_the_least_recently_used_model_leaves_before_another_is_loaded(core, monkeypatch):
    held, loaded = OrderedDict(), []
    monkeypatch.setattr(core, "_held", held)
    monkeypatch.setattr(core, "load", lambda category: loaded.append((category, len(held))) or f"model {category}")
    monkeypatch.setattr(core.catalogue, "facts_of", lambda category: {"weights_sha256": f"hash of {category}"})
    size = core.config.serve.models_held
    first, *rest = (f"category {number}" for number in range(size + 1))
    for category in (first, *rest[:-1], first, rest[-1]):
        assert core.held(category) == f"model {category}"
    assert [category for category, _ in held] == [*rest[1:-1], first, rest[-1]]
    assert loaded == [(first, 0), *((name, at) for at, name in enumerate(rest[:-1], 1)), (rest[-1], size - 1)]
    monkeypatch.setattr(core.catalogue, "facts_of", lambda category: {"weights_sha256": "trained anew"})
    core.held(first)
    assert loaded[-1] == (first, size - 1)


def test_score_maps_come_with_the_pair_and_change_no_byte_of_it(client):
    body = {"defect": "bent", "seed": 5, "boxes": [[8, 8, 16, 16]]}
    (plain,) = client.post(POST, json=body).json()["pairs"]
    (pair,) = client.post(POST, json={**body, "score_maps": True}).json()["pairs"]
    maps = pair.pop("score_maps")
    assert pair == plain
    assert set(maps) == {"image", "annotation", "control", "image_hat", "annotation_hat"}
    control = decoded(maps["control"], "png")
    assert control.shape == (32, 32, 2)
    assert (control[..., 1] > 0).sum() == 16 * 16  # the window the network works on
    assert control[10:14, 10:14, 0].mean() > 200 > 50 > control[2:4, 2:4, 0].mean()
    assert (maps["control"]["low"], maps["control"]["high"]) == (pytest.approx(0, abs=0.1), pytest.approx(1, abs=0.1))
    assert 0 <= maps["image"]["low"] < maps["image"]["high"] <= 1
    packed = client.post(POST, json={**body, "score_maps": True, "response": "zip"})
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    assert archive.read("mesh_bent_5_score_image.png") == base64.b64decode(maps["image"]["png"])
    (row,) = (json.loads(line) for line in archive.read("metadata.jsonl").splitlines())
    assert row["score_maps"]["image"] == {"low": maps["image"]["low"], "high": maps["image"]["high"]}


def test_who_looks_and_who_does_not_share_a_pass(served_config):
    service = Service(served_config)
    service.batcher.wait_seconds = 5.0
    plain, looked = PairQuery(category="mesh", defect="bent", seed=1), {"previews": True, "score_maps": True}
    queries = [plain, plain.model_copy(update=looked), plain, plain.model_copy(update=looked)]

    async def at_once():
        return await asyncio.gather(*(service.pairs(query) for query in queries))

    (a,), (b,), (c,), (d,) = asyncio.run(at_once())
    assert service.batcher.passes == 1
    assert b == d
    assert len(b.score_maps) == 5
    assert a == replace(b, score_maps=None) == c


def test_models_are_read_again_only_where_their_files_changed(trained, monkeypatch):
    """Else every two seconds each model of a run would be fetched from its store."""
    read = []
    monkeypatch.setattr(catalogue, "model_facts", lambda folder, name: read.append(name) or model_facts(folder, name))
    config = trained()
    there, run = Catalogue(config), Run(config)
    assert read == ["capsule", "mesh"]
    there._read_at = float("-inf")
    assert set(there.facts) == {"capsule", "mesh"}
    assert len(read) == 2
    run.folder.delete("models/mesh/files.json")  # else its marker is held to a hash
    run.folder.write_json("models/mesh/dhdiff.json", {**there.facts["mesh"], "last_loss": 0.25})
    there._read_at = float("-inf")
    assert there.facts["mesh"]["last_loss"] == 0.25
    assert read == ["capsule", "mesh", "mesh"]


def test_a_model_of_another_split_is_not_served_and_the_others_are(trained, caplog):
    config = trained()
    run, model = Run(config), "models/mesh/dhdiff.json"
    facts = run.folder.read_json(model)
    run.folder.delete("models/mesh/files.json")  # else its marker is held to a hash
    run.folder.write_json(model, {**facts, "split_digest": run.category("mesh").digest})
    assert [m["category"] for m in Catalogue(config).models()] == ["capsule", "mesh"]
    run.folder.write_json(model, {**facts, "split_digest": "0123456789abcdef"})
    with TestClient(make_app(Service(config)), "http://localhost") as client:
        assert [m["category"] for m in client.get("/v1/models").json()["models"]] == ["capsule"]
        for answer in (client.post(POST, json={"defect": "bent"}), client.get("/v1/models/mesh/bases/0")):
            assert answer.status_code == 409
            assert "the model of 'mesh' was made under the split 0123456789abcdef" in answer.json()["detail"]
        assert client.post("/v1/categories/capsule/pairs", json={"defect": "crack"}).status_code == 200
    assert "not served: the model of 'mesh'" in caplog.text
    run.folder.delete("models/capsule/dhdiff.json")
    with pytest.raises(ValueError, match="was made under the split 0123456789abcdef"):
        Catalogue(config)


def test_requests_of_several_clients_share_a_pass_and_change_nothing(served_config):
    service = Service(served_config)
    service.batcher.wait_seconds = 5.0  # a full pass does not wait
    queries = [PairQuery(category="mesh", defect=defect, seed=seed) for defect in ("bent", "stain") for seed in (1, 2)]

    async def at_once():
        return await asyncio.gather(*(service.pairs(query) for query in queries))

    together = asyncio.run(at_once())
    assert service.batcher.passes == 1
    assert together == [service.core.pairs(query) for query in queries]


def test_health_and_readiness_and_counters(client):
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json() == {"status": "ready", "models": 2}
    asked(client)
    text = client.get("/metrics").text
    assert 'dhdiff_pairs_total{category="mesh"}' in text
    assert 'dhdiff_requests_total{route="/v1/pairs",status="200"}' in text


def test_nobody_behind_it_is_not_ready():
    app = make_app(Backend(BusyError()))
    with TestClient(app, "http://localhost") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503


class Backend:
    """Fails as it is told to."""

    def __init__(self, error):
        self.error = error

    async def read(self, reading):
        raise self.error

    async def pairs(self, query):
        raise self.error


def test_a_full_queue_is_told_with_when_to_come_back():
    answer = TestClient(make_app(Backend(BusyError())), "http://localhost").post("/v1/pairs", json=ASK)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "3"


def test_a_fault_is_told_by_its_request_id_and_not_by_its_trace(caplog):
    client = TestClient(make_app(Backend(KeyError("secret"))), "http://localhost")
    answer = client.post("/v1/pairs", json=ASK, headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "abc-1"
    assert "abc-1" in answer.json()["detail"]
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_with_tokens_only_health_and_the_page_are_open(served_config, tmp_path):
    (tmp_path / "keys").write_text(f"# ours\nline {'t' * 20}\n")
    (tmp_path / "keys").chmod(0o600)
    app = make_app(Service(served_config), Access(str(tmp_path / "keys")))
    with TestClient(app, "http://anywhere") as client:
        for address in (
            "/healthz",
            "/readyz",
            "/",
            "/page/app.js",
            "/page/board.js",
            "/page/results.js",
            "/page/style.css",
        ):
            assert client.get(address).status_code == 200, address
        wrong = ({}, {"Authorization": "Bearer no"}, {"Authorization": "t" * 20}, {"Authorization": "Bearer é"})
        for header in wrong:
            answer = client.get("/v1/models", headers={k: v.encode() for k, v in header.items()})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for address in ("/metrics", "/v1/models/mesh", "/v1/models/mesh/bases/0"):
            assert client.get(address).status_code == 401
        assert client.post("/v1/pairs", json=ASK).status_code == 401
        right = {"Authorization": "Bearer " + "t" * 20}
        assert client.get("/v1/models", headers=right).status_code == 200


def test_what_is_not_done_in_time_is_504_and_stops(served_config):
    service = Service(served_config)
    with TestClient(make_app(service), "http://localhost") as client:
        late = client.post(POST, json={"defect": "bent", "steps": 200}, headers={"X-Deadline-Seconds": "0.05"})
        assert late.status_code == 504
        assert "X-Deadline-Seconds" in late.json()["detail"]
        assert client.post(POST, json={"defect": "bent"}).status_code == 200  # not 200 steps later


def test_a_client_that_goes_away_stops_the_drawing(served_config):
    service = Service(served_config)
    app, body = make_app(service), b'{"defect": "bent", "steps": 200, "n": 16}'
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": POST, "query_string": b"", "headers": headers}
    sent = []

    async def leave():
        messages = [{"type": "http.request", "body": body}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.sleep(0.2)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await app({**scope, "http_version": "1.1", "scheme": "http", "client": None, "server": None}, receive, send)
        assert service.batcher.waiting == 12  # withdrawn, and swept at the next pass
        assert len(await service.pairs(PairQuery(category="mesh", defect="bent"))) == 1

    asyncio.run(leave())
    assert service.batcher.drawn == 1


def test_a_model_trained_meanwhile_is_found_without_a_restart(trained):
    config, model = trained(), "models/mesh/dhdiff.json"
    folder = Run(config).folder
    hidden = folder.read_json(model)
    folder.delete(model)
    catalogue = Catalogue(config)
    assert [m["category"] for m in catalogue.models()] == ["capsule"]
    folder.write_json(model, hidden)
    catalogue._read_at = 0.0  # as if two seconds had passed
    assert [m["category"] for m in catalogue.models()] == ["capsule", "mesh"]


def test_a_refusal_keeps_its_status_between_processes():
    import pickle

    refused = pickle.loads(pickle.dumps(RefusedError(404, "no")))
    assert (refused.status, refused.message) == (404, "no")
