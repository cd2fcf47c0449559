"""How pairs are sent: names and their order in JSON, files as bytes, and what the endpoint's document says of them."""

import io
import json
import pickle
import zipfile

import pytest

from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.drawn import DrawnPair, Event, ScoreMap
from dhdiff_ray.serving.questions import PairQuery, RefusedError
from dhdiff_ray.serving.responses import answer, as_json, line

FACTS = {"category": "mesh", "defect": "bent", "seed": 3, "prompt": "p", "reference": None, "base": "a.png"}
PAIR = DrawnPair(b"image", b"mask", **FACTS)
SEEN = DrawnPair(b"image", b"mask", **FACTS, score_maps={"control": ScoreMap(b"map", 0.0, 0.5)})


def test_a_pair_in_json_has_its_pictures_first_and_maps_only_where_asked_for():
    plain = {"image": "aW1hZ2U=", "mask": "bWFzaw==", **FACTS}
    assert json.dumps(as_json(PAIR)) == json.dumps(plain)
    maps = {"score_maps": {"control": {"png": "bWFw", "low": 0.0, "high": 0.5}}}
    assert json.dumps(as_json(SEEN)) == json.dumps(plain | maps)
    assert json.loads(answer([PAIR], "json").body) == {"pairs": [plain]}


def test_a_line_of_a_stream_begins_with_its_event():
    event = Event("preview", {"pair": 0, "done": 1, "total": 2, "image": b"png", "mask": b"mask"})
    assert line(event).startswith('{"event": "preview", "pair": 0, "done": 1, "total": 2, "image": "cG5n"')
    assert json.loads(line(Event("pair", {"index": 1, "pair": PAIR})))["pair"] == as_json(PAIR)


def test_files_hold_the_bytes_and_their_table_no_picture():
    archive = zipfile.ZipFile(io.BytesIO(answer([SEEN], "zip").body))
    names = ["mesh_bent_3.png", "mesh_bent_3_mask.png", "mesh_bent_3_score_control.png", "metadata.jsonl"]
    assert archive.namelist() == names
    assert [archive.read(name) for name in names[:3]] == [b"image", b"mask", b"map"]
    assert json.loads(archive.read("metadata.jsonl")) == {**FACTS, "score_maps": {"control": {"low": 0.0, "high": 0.5}}}


def test_a_picture_is_the_same_bytes_from_json_and_from_a_form():
    in_json, in_form = (PairQuery(category="mesh", base=base) for base in ("cG5n", b"png"))
    assert in_json == in_form == pickle.loads(pickle.dumps(in_json))
    assert in_json.base == b"png"
    with pytest.raises(RefusedError, match="base is not a PNG or JPEG in base64"):
        PairQuery(category="mesh", base="no picture")


def test_the_endpoints_document_says_that_pictures_are_text():
    described = make_app(None).openapi()["paths"]["/v1/pairs"]["post"]["requestBody"]["content"]
    schema = described["application/json"]["schema"]
    assert schema["title"] == "Ask"
    for name in ("base", "reference", "reference_mask", "control_mask"):
        assert schema["properties"][name]["anyOf"] == [{"type": "string"}, {"type": "null"}]
