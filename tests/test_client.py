"""The client against answers as the endpoint gives them; against the endpoint itself in test_drawing_page.py."""

import base64
import json

import httpx
import pytest

from dhdiff_ray.client import Client, EndpointError, Preview, Progress, ScoreMap, ServedPair

ROW = {"category": "mesh", "defect": "bent", "seed": 3, "prompt": "p", "base": "a.png", "reference": None}
PAIR = {**ROW, "image": base64.b64encode(b"image").decode(), "mask": base64.b64encode(b"mask").decode()}


def client(*answers, patience=60.0):
    """A client that gets these answers in turn, what it asked, and how long it paused."""
    waiting, asked, pauses = list(answers), [], []

    def answer(request):
        asked.append(request)
        found = waiting.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    made = Client("http://e", "secret", transport=httpx.MockTransport(answer), sleep=pauses.append, patience=patience)
    return made, asked, pauses


def busy(after="7"):
    return httpx.Response(503, json={"detail": "busy"}, headers={"Retry-After": after})


def test_a_busy_endpoint_is_asked_again_not_before_it_says():
    made, asked, pauses = client(
        busy(), httpx.ConnectError("no"), busy("0"), httpx.Response(200, json={"pairs": [PAIR]})
    )
    (pair,) = made.pairs("a b/c", defect="bent", base=b"png", points=[(1, 2)])
    assert pair == ServedPair(b"image", b"mask", **ROW)
    assert asked[0].url.raw_path == b"/v1/categories/a%20b%2Fc/pairs"
    assert asked[0].headers["authorization"] == "Bearer secret"
    said = json.loads(asked[-1].content)
    assert said == {"defect": "bent", "seed": 0, "n": 1, "base": "cG5n", "points": [[1, 2]]}
    assert pauses[0] == 7
    assert 1 <= pauses[1] <= 2 <= pauses[2] <= 4


def test_patience_ends():
    made, _, pauses = client(busy("40"), busy("90"), patience=60)
    with pytest.raises(EndpointError, match="busy") as told:
        made.models()
    assert (told.value.status, pauses) == (503, [40])


def test_a_refusal_is_told_at_once_with_its_words():
    refused = httpx.Response(404, json={"detail": "no defect 'x'"}, headers={"X-Request-ID": "r1"})
    made, _, pauses = client(refused)
    with pytest.raises(EndpointError, match="no defect 'x'") as told:
        made.pairs("mesh", defect="x")
    assert (told.value.status, told.value.request_id, pauses) == (404, "r1", [])


def test_previews_and_score_maps_come_as_files():
    step = {"pair": 0, "done": 1, "total": 2}
    look = {"event": "preview", **step, "image": "cG5n", "mask": "bWFzaw=="}
    maps = {"score_maps": {"image": {"png": "bWFw", "low": 0.0, "high": 0.5}}}
    events = [{"event": "progress", **step}, look, {"event": "pair", "pair": PAIR | maps}, {"event": "done"}]
    made, asked, _ = client(httpx.Response(200, text="".join(json.dumps(row) + "\n" for row in events)))
    _, preview, pair = made.stream("mesh", defect="bent", previews=True, score_maps=True)
    assert preview == Preview(0, 1, 2, b"png", b"mask")
    assert pair.score_maps == {"image": ScoreMap(b"map", 0.0, 0.5)}
    assert json.loads(asked[0].content) == {"defect": "bent", "previews": True, "score_maps": True}


def test_a_stream_gives_progress_then_pairs_and_tells_when_it_broke():
    events = [{"event": "queued"}, {"event": "progress", "pair": 0, "done": 1, "total": 2}]
    whole = [*events, {"event": "pair", "index": 0, "pair": PAIR}, {"event": "done"}]

    def lines(rows):
        return httpx.Response(200, text="".join(json.dumps(row) + "\n" for row in rows))

    failed = {"event": "failed", "problem": {"status": 503, "detail": "busy"}}
    made, *_ = client(lines(whole), lines(events), lines([*events, failed]))
    assert list(made.stream("mesh", defect="bent")) == [Progress(0, 1, 2), ServedPair(b"image", b"mask", **ROW)]
    with pytest.raises(EndpointError, match="broke off"):
        list(made.stream("mesh"))
    with pytest.raises(EndpointError, match="busy"):
        list(made.stream("mesh"))
