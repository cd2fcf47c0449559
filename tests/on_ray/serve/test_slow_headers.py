"""Connections whose request never begins, against the HTTP server that Serve's proxies run."""

import contextlib
import os
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from ray.serve._private import constants
from ray.serve._private.http_util import validate_http_proxy_callback_return
from uvicorn.protocols.http import auto

from dhdiff_ray.config import ServeConfig
from dhdiff_ray.on_ray.serve import doors
from dhdiff_ray.serving.arrivals import WholeBodies

SECONDS = 0.3


async def application(scope, receive, send):
    """Reads the whole request, then says so."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def served(protocol, application=application):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(application, http=protocol, lifespan="off", log_config=None, timeout_keep_alive=30)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module", params=["h11", "httptools"])
def address(request):
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    protocol = {"h11": H11Protocol, "httptools": HttpToolsProtocol}[request.param]
    with served(doors.watched(protocol, SECONDS)) as address:
        yield address


def sent(address, *parts, pause=0.0):
    """All that comes back before the server closes the connection."""
    with socket.create_connection(address, timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = b""
        while data := connection.recv(4096):
            answer += data
        return answer


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET"])
def test_headers_that_do_not_come_to_an_end_close_the_connection(address, head):
    assert sent(address, head).startswith(b"HTTP/1.1 408 ")


def test_the_second_request_of_a_connection_is_watched_too(address):
    whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = sent(address, whole, b"GET / HT", pause=0.05)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"HTTP/1.1 408 " in answer


def test_who_sends_headers_in_time_is_never_cut_off(address):
    with httpx.Client(base_url="http://{}:{}".format(*address), trust_env=False) as client:
        for _ in range(3):
            assert client.get("/").text == "ok"
            time.sleep(2 * SECONDS)  # a connection kept open asks for nothing

        def slowly():
            yield b"a"
            time.sleep(2 * SECONDS)  # how long a body takes is the application's affair
            yield b"b"

        assert client.post("/", content=slowly(), headers={"content-length": "2"}).text == "ok"


def test_a_body_that_does_not_come_to_an_end_closes_the_connection_and_the_next_is_answered():
    bodies = WholeBodies(application, SECONDS, 100)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    with served(doors.watched(auto.AutoHTTPProtocol, SECONDS), bodies) as address:
        answer = sent(address, head, b"ab")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 0.3 s" in answer
        with httpx.Client(base_url="http://{}:{}".format(*address), trust_env=False) as client:
            assert client.post("/", content=b"abcde").text == "ok"


def test_serve_knows_the_variable_and_its_server_takes_the_protocol_from_where_it_is_put(monkeypatch):
    """Else half-sent headers hold connections for ever: look where Serve's proxies make their server."""
    limits = ServeConfig(header_seconds=7, body_seconds=8, max_body_mb=0.5)
    environment = doors.environment(limits)
    assert environment[doors.CALLBACK] == "dhdiff_ray.on_ray.serve.doors.guard"
    assert hasattr(constants, doors.CALLBACK)
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = auto.AutoHTTPProtocol
    (bodies,) = validate_http_proxy_callback_return(doors.guard())
    assert bodies.cls is WholeBodies
    assert bodies.kwargs == {"seconds": 8, "largest": 2**19}
    config = uvicorn.Config(application)
    config.load()
    assert config.http_protocol_class is auto.AutoHTTPProtocol
    assert issubclass(config.http_protocol_class, before)
    assert os.environ[doors.SECONDS] == "7.0"
