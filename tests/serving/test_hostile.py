"""What nobody should send: each is refused with its own words, and the next client is served as before."""

import asyncio
import base64
import io
import json
import struct
import zlib

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.serving.access import Access
from dhdiff_ray.serving.api import PAGE_PARTS, make_app
from dhdiff_ray.serving.questions import PairQuery
from dhdiff_ray.serving.responses import as_json
from dhdiff_ray.serving.sampler import SamplerCore

POST = "/v1/categories/mesh/pairs"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}


def text(data):
    return base64.b64encode(data).decode()


def picture(size, mode="L", kind="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return text(buffer.getvalue())


def claimed(width, height):
    """A PNG of a few bytes whose header says that it is large."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return text(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


def broken_exif(notes):
    """A picture whose camera's notes end too early."""
    buffer = io.BytesIO()
    Image.new("L", (32, 32)).save(buffer, "PNG", exif=b"Exif\0\0" + notes)
    return text(buffer.getvalue())


def part(head, content=b"1"):
    return b"--x\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


NAME = b'Content-Disposition: form-data; name="%s"'
SQUARE = png_bytes(np.full((32, 32), 255, np.uint8))

FIELDS = {
    "category in two places": ({"category": "capsule"}, 422, "the address says category 'mesh'"),
    "no defect": ({"defect": None}, 422, "say which defect: one of bent, broken, stain"),
    "a prompt without a defect": ({"defect": None, "prompt": "a cat"}, 422, "the prompt names no defect"),
    "an empty prompt": ({"prompt": ""}, 422, "prompt: String should have at least 1"),
    "an endless prompt": ({"prompt": "bent " * 1000}, 422, "prompt: String should have at most 500"),
    "a near miss": ({"defect": "bend"}, 404, "no defect 'bend'; did you mean 'bent'?"),
    "no defect at all": ({"defect": "good"}, 404, "no defect 'good'"),
    "a path as defect": ({"defect": "../../etc/passwd"}, 404, "no defect '../../etc/passwd'"),
    "a defect of another alphabet": ({"defect": "verbogen\u202e🔩"}, 404, "no defect"),
    "a NUL": ({"defect": "bent\x00"}, 404, "no defect"),
    "huge n": ({"n": 10**9}, 422, "n = 1000000000 is more than 16 pairs"),
    "n of zero": ({"n": 0}, 422, "n: Input should be greater than or equal to 1"),
    "n as a fraction": ({"n": 1.5}, 422, "n: Input should be a valid integer"),
    "n as a list": ({"n": [1]}, 422, "n: Input should be a valid integer"),
    "a negative seed": ({"seed": -1}, 422, "seed: Input should be greater than or equal to 0"),
    "a seed of 300 digits": ({"seed": 10**300}, 422, "seed"),
    "a seed that runs over": ({"seed": 2**63 - 1, "n": 2}, 422, "must not pass 2**63"),
    "endless steps": ({"steps": 10**6}, 422, "steps = 1000000 is more than 200"),
    "no steps": ({"steps": 0}, 422, "steps: Input should be greater than or equal to 1"),
    "guidance below zero": ({"guidance": -1}, 422, "guidance: Input should be greater than or equal to 0"),
    "strength above one": ({"strength": 1.01}, 422, "strength: Input should be less than or equal to 1"),
    "no strength to speak of": ({"strength": 5e-324}, 422, "strength: Input should be greater than or equal to 0.001"),
    "an unknown field": ({"sed": 1}, 422, "sed: Extra inputs are not permitted"),
    "a point outside": ({"points": [[32, 5]]}, 422, "point (32.0, 5.0) lies outside the 32 x 32 image"),
    "a point that is no number": ({"points": [["nan", 5]]}, 422, "points.0.0: Input should be a finite number"),
    "a point of three": ({"points": [[1, 2, 3]]}, 422, "points"),
    "no points": ({"points": []}, 422, "points"),
    "very many points": ({"points": [[1, 1]] * 10_000}, 422, "points: List should have at most 256"),
    "a box inside out": ({"boxes": [[9, 9, 3, 3]]}, 422, "must be (left, top, right, bottom) inside"),
    "a box outside": ({"boxes": [[0, 0, 99, 9]]}, 422, "inside the 32 x 32 image"),
    "mask and points": ({"control_mask": text(SQUARE), "points": [[1, 1]]}, 422, "give one of them"),
    "base and number": ({"base": text(SQUARE), "base_number": 0}, 422, "give one of them"),
    "a base that is not there": ({"base_number": 99}, 404, "base_number = 99: there are 3, counted from 0"),
    "a reference that is not there": ({"reference_number": 99}, 404, "reference_number = 99"),
    "a reference without a place": ({"reference": text(SQUARE)}, 422, "where is the defect?"),
    "a place without a reference": ({"reference_mask": text(SQUARE)}, 422, "reference_mask belongs to reference"),
    "an empty mask": ({"control_mask": picture((32, 32))}, 422, "control_mask is empty"),
    "a mask of another size": (
        {"base": picture((64, 64)), "control_mask": text(SQUARE)},
        422,
        "control_mask is 32 x 32 pixels, base is 64 x 64",
    ),
    "a mask of another size than its reference": (
        {"reference": picture((64, 64)), "reference_mask": text(SQUARE)},
        422,
        "reference_mask is 32 x 32 pixels, reference is 64 x 64",
    ),
    "no base64": ({"base": "no picture"}, 422, "base is not a PNG or JPEG in base64"),
    "another format": ({"base": picture((32, 32), "L", "GIF")}, 422, "base is not a PNG or JPEG"),
    "one pixel": ({"base": picture((1, 1))}, 422, "base is 1 x 1 pixels; at least 8"),
    "a great many pixels": ({"base": claimed(10_000, 10_000)}, 422, "pixels; at"),
    "a decompression bomb": ({"base": claimed(2**31 - 1, 2**31 - 1)}, 422, "unpacks to far too many pixels"),
    "a picture cut short": ({"base": text(SQUARE[:40])}, 422, "base is not a PNG or JPEG"),
    "a picture whose header lies": ({"base": claimed(4096, 4096)}, 422, "base is not a PNG or JPEG"),
    "a picture with broken EXIF": ({"base": broken_exif(b"MM\0*")}, 422, "base is not a PNG or JPEG"),
    "another with broken EXIF": ({"base": broken_exif(b"MM")}, 422, "base is not a PNG or JPEG"),
    "a page": ({"base": text(b"<svg onload=alert(1)>")}, 422, "base is not a PNG or JPEG"),
    "another kind of answer": ({"response": "exe"}, 422, "response: Input should be 'json'"),
}
BODIES = {
    "no JSON": (JSON, b"{", 400, "the body is not JSON"),
    "NaN for a number": (JSON, b'{"defect": "bent", "guidance": NaN}', 422, "guidance: Input should be a finite"),
    "Infinity": (JSON, b'{"defect": "bent", "points": [[Infinity, 1]]}', 422, "points.0.0"),
    "brackets without end": (JSON, b"[" * 200_000, 400, "the body is not JSON"),
    "not UTF-8": (JSON, b'{"defect": "\xff\xfe"}', 400, "the body is not JSON"),
    "a list": (JSON, b"[1]", 422, "the body must be a JSON object"),
    "nothing": (JSON, b"", 400, "the body is not JSON"),
    "a digit too many": (JSON, b'{"seed": ' + b"9" * 100_000 + b"}", 400, "the body is not JSON"),
    "another type": ({"content-type": "text/plain"}, b"{}", 415, "send application/json or multipart"),
    "no type": ({"content-type": ""}, b"{}", 415, "send application/json or multipart"),
    "a form without boundary": ({"content-type": "multipart/form-data"}, b"--x--", 400, "no usable boundary"),
    "a boundary in pieces": (
        {"content-type": "multipart/form-data; boundary*=x; boundary*0=y"},
        b"--x--",
        400,
        "no usable boundary",
    ),
    "a boundary of many pieces": (
        {"content-type": f"multipart/form-data; boundary*{'9' * 900}=x"},
        b"--x--",
        400,
        "no usable boundary",
    ),
    "a type without end": ({"content-type": f"multipart/form-data; a={'9' * 5000}"}, b"", 400, "at most 1024"),
    "a name in pieces": (
        FORM,
        part(b"Content-Disposition: form-data; name*=x; name*0=y") + b"--x--",
        400,
        "has no name",
    ),
    "a form that is none": (FORM, b"hello", 400, "does not begin with its boundary"),
    "a form cut short": (FORM, part(NAME % b"defect", b"bent"), 400, "the form is cut short"),
    "a part without headers": (FORM, b"--x\r\nno gap\r\n--x--", 400, "no end of its headers"),
    "a part without a name": (FORM, part(b"Content-Type: text/plain") + b"--x--", 400, "has no name"),
    "a name twice": (FORM, part(NAME % b"seed") * 2 + b"--x--", 422, "the form has seed twice"),
    "too many parts": (FORM, part(NAME % b"a") * 65 + b"--x--", 400, "65 parts; at most 64"),
    "text that is none": (FORM, part(NAME % b"defect", b"\xff") + b"--x--", 422, "defect is not text in UTF-8"),
    "points that are no JSON": (FORM, part(NAME % b"points", b"1,2") + b"--x--", 422, "points must be JSON"),
    "more than is taken": ({**JSON, "content-length": str(2**40)}, b"{}", 413, "a request may have"),
    "a length that is none": ({**JSON, "content-length": "-1"}, b"{}", 400, "Content-Length must be a number"),
    "no length": (JSON, iter([b"{}"]), 411, "say how long the request is"),
    "no time": ({**JSON, "x-deadline-seconds": "nan"}, b'{"defect": "bent"}', 422, "above 0"),
    "another site's page": ({**JSON, "origin": "http://evil.example"}, b"{}", 403, "pages of other sites"),
    "an origin that is none": ({**JSON, "origin": "http://["}, b"{}", 403, "pages of other sites"),
    "a page without origin": ({**JSON, "origin": "null"}, b"{}", 403, "pages of other sites"),
    "half an address": ({**JSON, "host": "["}, b"{}", 400, "Host must be a name or an address"),
    "half of one in six parts": ({**JSON, "host": "[::1"}, b"{}", 400, "Host must be a name or an address"),
    "a name before ours": ({**JSON, "host": "x\\@127.0.0.1"}, b"{}", 400, "Host must be a name or an address"),
    "a name behind ours": ({**JSON, "host": "127.0.0.1#evil"}, b"{}", 400, "Host must be a name or an address"),
    "a name bound to us": ({**JSON, "host": "evil.example"}, b"{}", 421, "answers to localhost only"),
}
ADDRESSES = {
    "a near miss": ("/v1/categories/mehs/pairs", 404, "no category 'mehs'; did you mean 'mesh'?"),
    "upwards": ("/v1/categories/..%2f..%2fetc/pairs", 404, "no"),
    "another alphabet": ("/v1/categories/%F0%9F%94%A9/pairs", 404, "no category '🔩'"),
    "no UTF-8": ("/v1/categories/%ff%fe/pairs", 404, "no category"),
    "a page upwards": ("/page/..%2fapi.py", 404, "there is no such address"),
    "an accent": ("/v1/categories/%C3%A9/pairs", 404, "no category 'é'"),
    "no name at all": ("/v1/categories/%20/pairs", 404, "no category ' '"),
    "an address of 60,000 letters": ("/v1/categories/" + "a" * 60_000 + "/pairs", 422, "category: String should have"),
}


def refused(answer, status, words):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert words in told["detail"]
    assert len(told["detail"]) < 2000
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_question_that_cannot_be_answered(client, name):
    fields, status, words = FIELDS[name]
    said = {key: value for key, value in {"defect": "bent", **fields}.items() if value is not None}
    refused(client.post(POST, content=json.dumps(said), headers=JSON), status, words)


@pytest.mark.parametrize("name", BODIES)
def test_a_request_that_cannot_be_read(client, name):
    headers, body, status, words = BODIES[name]
    refused(client.post(POST, content=body, headers=headers), status, words)


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_is_none(client, name):
    address, status, words = ADDRESSES[name]
    refused(client.post(address, json={"defect": "bent"}), status, words)


def test_a_category_without_a_name_is_refused_in_the_body_too(client):
    refused(client.post("/v1/pairs", json={"category": "", "defect": "bent"}), 422, "category: String should have at l")


@pytest.mark.parametrize("address", ["/", *(f"/page/{name}" for name in PAGE_PARTS)])
@pytest.mark.parametrize("name", ["/etc/hostname", "../api.py"])
def test_no_query_chooses_the_pages_file(client, address, name):
    assert client.get(address, params={"name": name}).content == client.get(address).content


def test_pictures_of_every_mode_are_taken(client):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        answer = client.post(POST, json={"defect": "bent", "base": picture((40, 20), mode), "steps": 1})
        assert answer.status_code == 200, (mode, answer.text)
    assert client.post(POST, json={"defect": "bent", "base": picture((9, 9), "CMYK", "JPEG"), "steps": 1}).is_success


class Empty:
    """A backend that has nothing, and counts how often it is asked."""

    asked = 0

    async def read(self, reading):
        self.asked += 1
        return []


def test_a_key_that_is_answered_often_enough_at_once_waits_and_others_do_not(tmp_path, served_config):
    class Slow(Empty):
        async def read(self, reading):
            await asyncio.sleep(0.2)
            return []

    (tmp_path / "keys").write_text(f"one {'a' * 16}\ntwo {'b' * 16}\n")
    (tmp_path / "keys").chmod(0o600)
    limits = served_config.serve.model_copy(update={"in_flight": 2})
    app = make_app(Slow(), Access(str(tmp_path / "keys")), limits)

    async def asked():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://any") as client:
            keys = [{"authorization": f"Bearer {letter * 16}"} for letter in "aaaabb"]
            together = await asyncio.gather(*(client.get("/v1/models", headers=key) for key in keys))
            return [answer.status_code for answer in together], await client.get("/v1/models", headers=keys[0])

    codes, later = asyncio.run(asked())
    assert codes == [200, 200, 429, 429, 200, 200]
    assert later.status_code == 200


def test_whether_it_is_ready_is_asked_once_for_many_and_told_to_our_own_names_alone():
    backend = Empty()
    with TestClient(make_app(backend), "http://localhost") as client:
        assert [client.get("/readyz").status_code for _ in range(20)] == [200] * 20
        assert backend.asked <= 2
        for host, status in (("evil.example", 421), ("127.0.0.1#evil", 400), ("[", 400)):
            refused(client.get("/readyz", headers={"host": host}), status, "")


def test_no_answer_is_for_other_sites(client):
    answer = client.get("/v1/models", headers={"origin": "http://localhost"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    preflight = {"origin": "http://localhost", "access-control-request-method": "POST"}
    assert client.options(POST, headers=preflight).status_code == 405


def test_a_line_break_in_a_request_id_goes_nowhere(client):
    answer = client.get("/healthz", headers={"x-request-id": "a b; drop"})
    assert answer.headers["x-request-id"] != "a b; drop"


def test_a_key_may_ask_so_often_a_minute(tmp_path):
    now = [0.0]
    (tmp_path / "keys").write_text(f"line {'a' * 16} 2\nbulk {'b' * 16}\n")
    (tmp_path / "keys").chmod(0o600)
    access = Access(str(tmp_path / "keys"), clock=lambda: now[0])
    client = TestClient(make_app(Empty(), access), "http://any")
    line, bulk = ({"authorization": f"Bearer {letter * 16}"} for letter in "ab")
    codes = [client.get("/v1/models", headers=line).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert client.get("/v1/models", headers=line).headers["Retry-After"] == "31"
    assert client.get("/v1/models", headers=bulk).status_code == 200
    now[0] = 31.0
    assert client.get("/v1/models", headers=line).status_code == 200


def test_after_all_that_a_pair_is_drawn_as_ever(client, served_config):
    answer = client.post(POST, json={"defect": "bent", "seed": 1})
    (pair,) = SamplerCore(served_config).pairs(PairQuery(category="mesh", defect="bent", seed=1))
    assert answer.json()["pairs"] == [as_json(pair)]
