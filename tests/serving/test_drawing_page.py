"""The page in a real browser: draw, make, download, by mouse and by keyboard, wide and on a phone; and the clients."""

import base64
import importlib.util
import io
import json
import os
import shutil
import socket
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from dhdiff_ray.client import Client, Preview, Progress, ServedPair
from dhdiff_ray.serving.access import Access
from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.service import Service

TOKEN = "t" * 32


@pytest.fixture(scope="module")
def endpoint(served_config, tmp_path_factory):
    """The application on a port of this machine, asking for a token."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"test {TOKEN}\n")
    keys.chmod(0o600)
    app = make_app(Service(served_config), Access(str(keys)), served_config.serve)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromium"):
        pytest.skip("needs chromium on this machine")
    if importlib.util.find_spec("websockets") is None:
        pytest.skip("needs the package websockets")
    from browser import Browser

    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def opened(browser, endpoint, **size):
    browser.open(endpoint, **size)
    browser.js("sessionStorage.clear()")
    browser.open(endpoint, **size)
    browser.until("!document.querySelector('#locked').hidden")
    browser.js(f"document.querySelector('#token').value = '{TOKEN}'")
    browser.click("#unlock")
    browser.until("state.picture !== null && document.querySelector('#locked').hidden")
    browser.complaints.clear()  # the browser tells of the first 401 itself


def made(browser):
    browser.until("document.querySelector('#status').textContent.includes('made')")


def test_draw_make_and_download_in_a_browser(browser, endpoint):
    opened(browser, endpoint)
    browser.js("document.querySelector('#category').value = 'mesh'")
    browser.js("document.querySelector('#category').dispatchEvent(new Event('change'))")
    browser.until("state.model.category === 'mesh' && state.picture !== null")
    browser.click("input[value=box] + span")
    browser.drag("#board", (0.25, 0.25), (0.49, 0.49))
    browser.js("document.querySelector('#n').value = 2")
    browser.click("#go")
    made(browser)
    assert browser.js("document.querySelectorAll('#results canvas').length") == 2
    with Client(endpoint, TOKEN) as client:
        (left, top, right, bottom), said = browser.js("fields().boxes")[0], browser.js("fields()")
        assert (left, top, right, bottom) == (8, 8, 16, 16)
        del said["drawn"]
        pairs = client.pairs("mesh", **{**said, "seed": int(said["seed"])})
    browser.click("#results a")
    assert browser.downloaded(f"mesh_{said['defect']}_1.png") == pairs[0].image
    browser.click("#zip")
    archive = zipfile.ZipFile(io.BytesIO(browser.downloaded("pairs.zip")))
    assert archive.testzip() is None
    assert archive.read(f"mesh_{said['defect']}_2_mask.png") == pairs[1].mask
    assert len(archive.read("metadata.jsonl").splitlines()) == 2
    assert browser.complaints == []


def test_pairs_arrive_step_by_step_with_what_the_text_saw(browser, endpoint):
    opened(browser, endpoint)
    browser.click("input[value=box] + span")
    browser.drag("#board", (0.25, 0.25), (0.49, 0.49))
    browser.js("document.querySelector('#n').value = 2; document.querySelector('#steps').value = 4")
    browser.click("#maps")
    assert "score_maps=True" in browser.js("document.querySelector('#python').textContent")
    assert "-F 'score_maps=true'" in browser.js("document.querySelector('#curl').textContent")
    browser.js(
        "window.told = []; new MutationObserver(() => window.told.push([...document.querySelectorAll('figcaption')]"
        ".map(c => c.textContent).join('|'))).observe(document.querySelector('#results'), "
        "{ childList: true, subtree: true, characterData: true })"
    )
    browser.click("#go")
    made(browser)
    told = browser.js("window.told")
    assert any("being drawn: step 1 of 4" in words for words in told)
    assert "being drawn" not in told[-1]
    assert browser.js("document.querySelectorAll('#results figure').length") == 2
    assert browser.js("document.querySelectorAll('.maps canvas').length") == 10
    assert ": place, " in browser.js("document.querySelectorAll('.maps canvas')[2].ariaLabel")
    (browser.downloads / "pairs.zip").unlink(missing_ok=True)  # another test's
    browser.click("#zip")
    archive = zipfile.ZipFile(io.BytesIO(browser.downloaded("pairs.zip")))
    names = [name for name in archive.namelist() if "_score_" in name]
    assert len(names) == 10
    assert Image.open(io.BytesIO(archive.read(names[0]))).mode == "LA"
    (browser.downloads / "pairs.zip").unlink()
    assert browser.complaints == []


def test_a_brush_on_an_own_image_becomes_a_control_mask(browser, endpoint, tmp_path):
    opened(browser, endpoint)
    picture = tmp_path / "mine.png"
    Image.fromarray(np.full((48, 48, 3), 120, np.uint8)).save(picture)
    node = browser.call("DOM.getDocument")["root"]["nodeId"]
    upload = browser.call("DOM.querySelector", nodeId=node, selector="#upload")["nodeId"]
    browser.call("DOM.setFileInputFiles", files=[str(picture)], nodeId=upload)
    browser.until("state.own !== null && board.width === 48")
    browser.drag("#board", (0.3, 0.3), (0.5, 0.5))
    assert "-F base=@base.png" in browser.js("document.querySelector('#curl').textContent")
    assert "control_mask=open(" in browser.js("document.querySelector('#python').textContent")
    browser.js("document.querySelector('#status').textContent = ''")
    browser.click("#go")
    made(browser)
    assert browser.js("state.pairs[0].base") is None
    assert browser.complaints == []


def test_by_keyboard_and_on_a_phone(browser, endpoint):
    opened(browser, endpoint, width=360, height=740, phone=True)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    nameless = "[...document.querySelectorAll('input, select, button')].filter(e => !(e.labels?.length || e.ariaLabel"
    assert browser.js(f"{nameless} || e.textContent.trim())).map(e => e.id)") == []
    small = (
        "[...document.querySelectorAll('button, .button, select')].filter(e => e.offsetParent && e.offsetHeight < 36)"
    )
    assert browser.js(f"{small}.length") == 0
    browser.js("document.querySelector('input[value=point]').focus()")
    browser.press(" ", 32, " ")
    browser.js("board.focus()")
    browser.press("ArrowLeft", 37)
    browser.press(" ", 32, " ")
    assert browser.js("fields().points") == [[15, 16]]
    browser.press("Backspace", 8)
    assert browser.js("fields().points") is None
    browser.js("document.querySelector('#seed').focus()")
    browser.press("Enter", 13, "\r")
    made(browser)
    browser.js("document.querySelector('#steps').value = 9999; document.querySelector('#ask').noValidate = true")
    browser.click("#go")
    browser.until("document.querySelector('#status').textContent.includes('steps = 9999 is more than 200')")


def test_the_first_click_makes_a_pair_where_the_example_is_drawn(browser, endpoint):
    opened(browser, endpoint)
    assert browser.js("fields().boxes") == [[12, 12, 20, 20]]
    assert "An example is drawn" in browser.js("document.querySelector('#where').textContent")
    browser.click("#go")
    made(browser)
    assert browser.js("document.querySelector('#results .two img').naturalWidth") == 32
    assert browser.js("document.querySelector('#results canvas').width") == 512
    browser.drag("#board", (0.25, 0.25), (0.3, 0.3))
    assert browser.js("state.shapes.map(shape => shape.kind)") == ["brush"], "one's own mark takes the example's place"
    assert browser.complaints == []


def test_a_pair_starts_from_a_placed_reference_as_strong_as_is_said(browser, endpoint):
    opened(browser, endpoint)
    assert browser.js("document.querySelector('#noised').hidden")
    browser.js("document.querySelector('#from').value = 'reference'")
    browser.js("document.querySelector('#from').dispatchEvent(new Event('change'))")
    assert not browser.js("document.querySelector('#noised').hidden")
    browser.js("document.querySelector('#reference').selectedIndex = 2")
    browser.js("document.querySelector('#strength').value = 30")
    browser.js("document.querySelector('#strength').dispatchEvent(new Event('input', { bubbles: true }))")
    said = browser.js("fields()")
    assert (said["start"], said["strength"], said["reference_number"]) == ("reference", 0.3, 1)
    assert "-F 'start=reference'" in browser.js("document.querySelector('#curl').textContent")
    browser.click("#go")
    made(browser)
    del said["drawn"]
    with Client(endpoint, TOKEN) as client:
        category = browser.js("state.model.category")
        (pair,) = client.pairs(category, **{**said, "seed": int(said["seed"])})
    assert browser.js("state.pairs[0].image") == base64.b64encode(pair.image).decode()
    browser.js("document.querySelector('#from').value = 'base'")
    browser.js("document.querySelector('#from').dispatchEvent(new Event('change'))")
    assert browser.js("fields()")["strength"] == 0.8
    assert "start" not in browser.js("fields()")
    assert browser.complaints == []


def test_what_was_made_in_this_session_can_be_shown_again(browser, endpoint):
    opened(browser, endpoint)
    for seed in (5, 6):
        browser.js(
            f"document.querySelector('#seed').value = {seed}; document.querySelector('#status').textContent = ''"
        )
        browser.click("#go")
        made(browser)
    assert browser.js("document.querySelectorAll('#history button').length") == 2
    assert browser.js("state.pairs[0].seed") == 6
    assert browser.js("document.querySelectorAll('#history li:first-child [aria-current]').length") == 1
    browser.click("#history li:last-child button")
    browser.until("document.querySelector('#status').textContent.includes('Shown again')")
    assert browser.js("state.pairs[0].seed") == 5
    assert "seed 5" in browser.js("document.querySelector('#results figcaption').textContent")
    assert browser.js("document.querySelectorAll('#results figure').length") == 1
    assert browser.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 800, 390])
def test_the_page_fits_its_window_and_has_names_and_contrast(browser, endpoint, width, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened(browser, endpoint, width=width, phone=width < 500)
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true })")
    browser.js("document.querySelector('#maps').checked = true")
    for _ in range(2):
        browser.js("document.querySelector('#status').textContent = ''")
        browser.click("#go")
        made(browser)
    if folder := os.environ.get("DHDIFF_SHOTS"):
        browser.shot(Path(folder) / f"endpoint-{width}-{scheme}.png")
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.faults_of_access() == []


def test_the_client_streams_and_sample_fills_a_tree_and_goes_on(endpoint, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from dhdiff_ray.cli.app import app

    with Client(endpoint, TOKEN) as client:
        events = list(client.stream("mesh", defect="bent", seed=3))
        (pair,) = client.pairs("mesh", defect="bent", seed=3)
        looked = list(client.stream("mesh", defect="bent", seed=3, previews=True))
    assert events == [Progress(0, 1, 2), Progress(0, 2, 2), pair]
    assert isinstance(pair, ServedPair)
    assert [event for event in looked if not isinstance(event, Preview)] == events
    (preview,) = (event for event in looked if isinstance(event, Preview))
    assert Image.open(io.BytesIO(preview.image)).size == (32, 32)

    monkeypatch.setenv("DHDIFF_TOKEN", TOKEN)
    words = ["sample", "--url", endpoint, "-c", "mesh", "--out", str(tmp_path / "pairs"), "--defect", "bent", "--json"]
    first = json.loads(CliRunner().invoke(app, [*words, "-n", "2"]).stdout)
    assert (first["made"], first["kept"]) == (2, 0)
    again = json.loads(CliRunner().invoke(app, [*words, "-n", "3"]).stdout)
    assert (again["made"], again["kept"]) == (1, 2)
    tree = tmp_path / "pairs" / "mesh"
    rows = [json.loads(line) for line in (tree / "metadata.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert rows[0]["base"].endswith(".png")
    assert len(list(tree.rglob("*.png"))) == 6
    assert [p.name for p in Path(tmp_path).iterdir()] == ["pairs"]

    other = CliRunner().invoke(app, [*words, "-n", "3", "--seed", "1"])
    assert "pairs of another --seed lie there" in str(other.exception)
    monkeypatch.setenv("DHDIFF_TOKEN", "wrong" * 5)
    assert type(CliRunner().invoke(app, words).exception).__name__ == "ClusterError"


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
        "Content-Length: 2\r\n X-Folded: 1\r\nTransfer-Encoding : chunked\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ],
    ids=["both lengths", "two lengths", "a space before the colon", "a chunk that is none"],
)
def test_a_request_that_two_servers_could_read_differently_is_refused(endpoint, lines):
    host, port = endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = f"POST /v1/categories/mesh/pairs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        line.sendall((head + "Content-Type: application/json\r\n" + lines).encode())
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert answer.count(b"HTTP/1.1") == 1
