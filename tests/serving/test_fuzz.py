"""Requests nobody thought of: from the endpoint's own description, and by damaging good ones. Seconds here, minutes
with ``make chaos``; every one is answered, none with a fault of ours, and each refusal says what is wrong.
"""

import base64
import io
import json
import random

import numpy as np
import pytest
import schemathesis
import torch
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.drawn import Event
from dhdiff_ray.serving.service import Service

POST = "/v1/categories/mesh/pairs"
REFUSED = {400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 421, 422, 429}


class Door(Service):
    """The real service up to where it would draw."""

    async def pairs(self, query):
        self.core.orders(query)
        return []

    async def stream(self, query):
        self.core.orders(query)
        yield Event("done", {"n": 0})


@pytest.fixture(scope="module")
def door(served_config):
    with TestClient(make_app(Door(served_config)), "http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(autouse=True)
def whole_floats():
    """Drawing sets this thread to round the smallest numbers to zero, which hypothesis refuses to work with."""
    torch.set_flush_denormal(False)


def often(few, many):
    """A few times here, many times with the marker."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.chaos)])


def bounded(examples):
    """The same examples each time."""
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)


def answered(answer, said=""):
    if answer.status_code in (200, 307):
        return
    assert answer.status_code in REFUSED, (answer.status_code, answer.text[:300], said)
    assert answer.headers["content-type"] == "application/problem+json", (answer.text[:300], said)
    told = answer.json()
    assert told["status"] == answer.status_code
    assert 5 < len(told["detail"]) < 2000


@often(8, 1500)
def test_what_the_description_allows_and_what_it_forbids_is_answered(door, examples):
    schema = schemathesis.openapi.from_asgi("/openapi.json", door.app)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 8
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            if not _can(operation, mode):
                continue

            @bounded(examples)
            @given(case=operation.as_strategy(generation_mode=mode))
            def asked(case):
                body = case.body if isinstance(case.body, dict | list) else None
                headers = {name: _ascii(value) for name, value in (case.headers or {}).items()}
                path = case.formatted_path
                answered(door.request(case.method, path, json=body, headers=headers), (path, body))

            asked()


def _can(operation, mode):
    """Whether an operation has anything that could be said wrongly."""
    return mode is schemathesis.GenerationMode.POSITIVE or operation.method == "post"


def _ascii(value):
    return str(value).encode("ascii", "replace").decode()


LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
HOSTS = st.one_of(LATIN, st.from_regex(r"[\[\]:@#?/\\a-z0-9.%]{1,20}", fullmatch=True))
FORM_TYPE = r"multipart/form-data;( ?(boundary|a)[*0-9]{0,3}=\"?[a-z\\;=]{0,9}\"?;?){0,4}"
TYPES = st.one_of(LATIN, st.from_regex(FORM_TYPE, fullmatch=True))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "host": HOSTS,
        "origin": HOSTS.map(lambda host: f"http://{host}"),
        "content-type": TYPES,
        "accept": LATIN,
        "authorization": LATIN,
        "content-length": st.from_regex(r"[-+0-9e. ]{1,18}", fullmatch=True),
        "x-deadline-seconds": st.one_of(LATIN, st.floats().map(str)),
        "x-request-id": LATIN,
        "sec-fetch-site": LATIN,
    },
)


@often(150, 30_000)
def test_headers_of_any_kind_are_answered(door, examples):
    @bounded(examples)
    @given(said=HEADERS, address=st.sampled_from([POST, POST + ":stream", "/v1/models", "/readyz", "/metrics", "/"]))
    def asked(said, address):
        headers = {name: value.strip().encode("latin-1") for name, value in said.items()}
        method = "POST" if "categories" in address else "GET"
        content = b'{"defect": "bent"}' if method == "POST" else None
        answered(door.request(method, address, content=content, headers=headers), (headers, address))

    asked()


def pictures():
    """Files of every kind that is taken, as good ones."""
    values = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "camera", {0x9000: b"0231"}
    files = [png_bytes(values), png_bytes(values[..., 0])]
    for kind, mode in (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "RGB")):
        buffer = io.BytesIO()
        Image.fromarray(values).convert(mode).save(buffer, kind, exif=exif)
        files.append(buffer.getvalue())
    return files


def damaged(data, draw):
    """Bytes flipped, cut out, doubled, or replaced by numbers that mean something, at a few places."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        at = draw.randrange(max(1, len(data)))
        length = draw.choice([1, 1, 2, 4, 16, 200])
        kind = draw.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([data[at] ^ 1 << draw.randrange(8)]) if data else b""
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3:
            data[at : at + 4] = draw.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
        else:
            data[at : at + length] = draw.randbytes(length)
    return bytes(data)


@often(200, 40_000)
def test_damaged_pictures_are_read_or_refused(door, examples):
    draw, files = random.Random(0), pictures()
    codes = set()
    for number in range(examples):
        data = damaged(files[number % len(files)], draw)
        field = ("base", "control_mask", "reference")[number % 3]
        rest = {"points": [[5, 5]]} if field == "reference" else {}
        if number % 2:
            answer = door.post(POST, json={"defect": "bent", field: base64.b64encode(data).decode(), **rest})
        else:
            said = {"defect": "bent", **{name: json.dumps(value) for name, value in rest.items()}}
            answer = door.post(POST, data=said, files={field: data})
        answered(answer, (number, answer.text[:200]))
        codes.add(answer.status_code)
    assert codes == {200, 422}


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="defect"\r\n\r\nbent\r\n'
    b'--x\r\nContent-Disposition: form-data; name="points"; filename="a.png"\r\nContent-Type: text/plain\r\n\r\n'
    b"[[1, 2]]\r\n--x\r\nContent-Disposition: form-data; name=seed\r\n\r\n7\r\n--x--\r\n"
)
BODY = json.dumps({"defect": "bent", "seed": 1, "n": 2, "boxes": [[1, 1, 9, 9]], "strength": 0.5, "previews": True})


@often(300, 60_000)
def test_damaged_forms_and_bodies_are_read_or_refused(door, examples):
    draw = random.Random(0)
    for number in range(examples):
        body, kind = ((FORM, "multipart/form-data; boundary=x"), (BODY.encode(), "application/json"))[number % 2]
        answered(door.post(POST, content=damaged(body, draw), headers={"content-type": kind}), number)
