"""A client of the endpoint in one file: it needs httpx and nothing of the rest, so it can be copied elsewhere.

Not in the paper. Decided: what is busy is asked again with growing pauses, at least as long as the endpoint says;
the same question has the same answer, so asking again is always safe.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

PICTURES = ("base", "reference", "reference_mask", "control_mask")
AGAIN = (429, 502, 503)
"""Statuses that say: not now."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class EndpointError(ValueError):
    """The endpoint refused or did not answer; ``status`` is its HTTP status, 0 where nobody answered."""

    def __init__(self, status: int, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.status, self.request_id = status, request_id


@dataclass(frozen=True)
class ScoreMap:
    """What text attention saw of the defect's words: a grey PNG with alpha, at the pair's size."""

    png: bytes
    low: float
    """The value that is black."""
    high: float
    """The value that is white."""


@dataclass(frozen=True)
class ServedPair:
    """An image with its mask, as PNG files, and what they were made from."""

    image: bytes
    mask: bytes
    category: str
    defect: str
    seed: int
    prompt: str
    base: str | None
    """Key of the run's normal image, or None where you sent your own."""
    reference: str | None
    """Key of the run's anomaly that lent its look, or None where you sent your own."""
    score_maps: Mapping[str, ScoreMap] | None = None
    """``image``, ``annotation``, ``control``, ``image_hat`` and ``annotation_hat``; None where you asked for none."""


@dataclass(frozen=True)
class Progress:
    """How far one pair is."""

    pair: int
    done: int
    total: int


@dataclass(frozen=True)
class Preview:
    """What a pair is expected to become, while it is drawn: small PNG files of image and mask."""

    pair: int
    done: int
    total: int
    image: bytes
    mask: bytes


class Client:
    """Asks one endpoint; safe to use from several threads. Use it as a context manager, or call ``close()``.

    Args:
        url: of the endpoint, such as ``http://127.0.0.1:8000``.
        token: if the endpoint asks for one.
        patience: seconds to go on asking while it is busy or away.
        timeout: seconds one answer may take.
        transport: httpx's own way to reach an application without a network.
        sleep: how to pause.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience: float = 120.0,
        timeout: float = 150.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.patience, self._sleep = url.rstrip("/"), patience, sleep
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, limits=limits, transport=transport, trust_env=False
        )

    def models(self) -> list[dict[str, Any]]:
        """Categories with their defects and limits."""
        return self._send("GET", "/v1/models").json()["models"]

    def model(self, category: str) -> dict[str, Any]:
        """One category in full."""
        return self._send("GET", f"/v1/models/{quote(category, safe='')}").json()

    def pairs(
        self,
        category: str,
        *,
        defect: str | None = None,
        prompt: str | None = None,
        seed: int = 0,
        n: int = 1,
        base: bytes | None = None,
        base_number: int | None = None,
        reference: bytes | None = None,
        reference_mask: bytes | None = None,
        reference_number: int | None = None,
        control_mask: bytes | None = None,
        points: Sequence[Sequence[float]] | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        start: str | None = None,
        score_maps: bool | None = None,
    ) -> list[ServedPair]:
        """Pairs of a category; arguments as in the endpoint's ``/docs``, pictures as the bytes of PNG or JPEG files.

        Raises:
            EndpointError: refused, or busy or away for longer than ``patience``.
        """
        query = {name: value for name, value in locals().items() if name not in ("self", "category")}
        answer = self._send("POST", f"/v1/categories/{quote(category, safe='')}/pairs", _body(query))
        return [_pair(pair) for pair in answer.json()["pairs"]]

    def stream(self, category: str, **query: Any) -> Iterator[Progress | Preview | ServedPair]:
        """As ``pairs``: the progress, previews with ``previews=True``, and each pair as soon as it is there.

        Raises:
            EndpointError: as ``pairs``; a stream that has begun is not asked for again.
        """
        path, body = f"/v1/categories/{quote(category, safe='')}/pairs:stream", _body(query)
        answer = self._send("POST", path, body, stream=True)
        try:
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["event"] == "progress":
                    yield Progress(event["pair"], event["done"], event["total"])
                elif event["event"] == "preview":
                    image, mask = (base64.b64decode(event[name]) for name in ("image", "mask"))
                    yield Preview(event["pair"], event["done"], event["total"], image, mask)
                elif event["event"] == "pair":
                    yield _pair(event["pair"])
                elif event["event"] == "failed":
                    raise EndpointError(event["problem"]["status"], event["problem"]["detail"], _id(answer))
                elif event["event"] == "done":
                    return
            raise EndpointError(0, f"{self.url} broke off; ask again")
        except httpx.HTTPError as error:
            raise EndpointError(0, f"{self.url} broke off ({type(error).__name__}); ask again") from None
        finally:
            answer.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _send(self, method: str, path: str, body: Any = None, stream: bool = False) -> httpx.Response:
        """An answer that is one; what is busy or away is asked again."""
        limit, pause = time.monotonic() + self.patience, FIRST_PAUSE
        while True:
            answer, wait, detail, status = None, 0.0, "", 0
            try:
                answer = self._http.send(self._http.build_request(method, path, json=body), stream=stream)
                if answer.is_success:
                    return answer
                answer.read()
                detail, status = _detail(answer), answer.status_code
                if status not in AGAIN:
                    raise EndpointError(status, detail, _id(answer))
                after = answer.headers.get("Retry-After", "")
                wait = float(after) if after.isdecimal() and after.isascii() else 0.0
            except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError) as error:
                detail = f"nobody answers at {self.url} ({type(error).__name__}); is it up? dhdiff-ray serve status"
            except httpx.TimeoutException:
                raise EndpointError(0, f"{self.url} did not answer in time; ask for less at once") from None
            pause = min(pause * 2, LONGEST_PAUSE)
            wait = max(wait, pause * random.uniform(0.5, 1))  # not all at the same moment
            if time.monotonic() + wait > limit:
                raise EndpointError(status, detail, _id(answer) if answer is not None else "")
            self._sleep(wait)


def _body(query: Mapping[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in query.items() if value is not None}
    return body | {name: base64.b64encode(body[name]).decode() for name in PICTURES if name in body}


def _pair(row: Mapping[str, Any]) -> ServedPair:
    rest: dict[str, Any] = {name: row[name] for name in ("category", "defect", "seed", "prompt", "base", "reference")}
    if "score_maps" in row:
        rest["score_maps"] = {
            name: ScoreMap(base64.b64decode(score_map["png"]), score_map["low"], score_map["high"])
            for name, score_map in row["score_maps"].items()
        }
    return ServedPair(base64.b64decode(row["image"]), base64.b64decode(row["mask"]), **rest)


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the endpoint answered {answer.status_code}"


def _id(answer: httpx.Response) -> str:
    return answer.headers.get("X-Request-ID", "")
