"""What goes back: pairs as JSON, ``multipart/mixed``, zip or a stream of lines, and errors as problem+json (RFC 9457).

Not in the paper. Decided: pictures become base64 here and nowhere else; an answer holds no date and no request's name,
so that equal pairs are equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse, Response

from dhdiff_ray.serving.drawn import DrawnPair, Event

PROBLEM = "application/problem+json"
FACTS = ("category", "defect", "seed", "prompt", "reference", "base")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error: its status, its name, what is wrong and what to do."""
    return JSONResponse(problem_json(status, detail), status, dict(headers or {}), media_type=PROBLEM)


def problem_json(status: int, detail: str) -> dict[str, str | int]:
    """The same as an object."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def answer(pairs: Sequence[DrawnPair], kind: str) -> Response:
    """The pairs.

    Args:
        pairs: in order.
        kind: ``json``, ``multipart`` or ``zip``.
    """
    if kind == "json":
        return JSONResponse({"pairs": [pair_json(pair) for pair in pairs]})
    files, rows = [file for pair in pairs for file in _files(pair)], [_row(pair) for pair in pairs]
    return _zip(files, rows) if kind == "zip" else _multipart(files, rows)


def pair_json(pair: DrawnPair) -> dict[str, Any]:
    """A pair as an object, its pictures in base64."""
    row = {"image": _base64(pair.image), "mask": _base64(pair.mask), **_row(pair)}
    for name, score_map in (pair.score_maps or {}).items():
        row["score_maps"][name] = {"png": _base64(score_map.png), **row["score_maps"][name]}
    return row


def line(event: Event) -> str:
    """One line of a stream."""
    values: dict[str, Any] = {"event": event.name, **event.values}
    for name, value in event.values.items():
        if isinstance(value, bytes):
            values[name] = _base64(value)
        elif isinstance(value, DrawnPair):
            values[name] = pair_json(value)
    return json.dumps(values) + "\n"


def failed_line(status: int, detail: str) -> str:
    """The last line of a stream that does not end well."""
    return json.dumps({"event": "failed", "problem": problem_json(status, detail)}) + "\n"


def _row(pair: DrawnPair) -> dict[str, Any]:
    """What a pair was made from, and the values that its score maps' black and white stand for."""
    row: dict[str, Any] = {name: getattr(pair, name) for name in FACTS}
    if pair.score_maps is not None:
        row["score_maps"] = {name: {"low": m.low, "high": m.high} for name, m in pair.score_maps.items()}
    return row


def _files(pair: DrawnPair) -> list[tuple[str, bytes]]:
    """Names and bytes of a pair's pictures."""
    stem = f"{pair.category}_{pair.defect}_{pair.seed}"
    maps = [(f"{stem}_score_{name}.png", score_map.png) for name, score_map in (pair.score_maps or {}).items()]
    return [(f"{stem}.png", pair.image), (f"{stem}_mask.png", pair.mask), *maps]


def _zip(files: Sequence[tuple[str, bytes]], rows: Sequence[dict[str, Any]]) -> Response:
    buffer = io.BytesIO()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (*files, ("metadata.jsonl", lines)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    headers = {"Content-Disposition": 'attachment; filename="pairs.zip"'}
    return Response(buffer.getvalue(), media_type="application/zip", headers=headers)


def _multipart(files: Sequence[tuple[str, bytes]], rows: Sequence[dict[str, Any]]) -> Response:
    facts = json.dumps({"pairs": rows}, ensure_ascii=False).encode()
    boundary = "pair-" + hashlib.sha256(facts + b"".join(data for _, data in files)).hexdigest()[:32]
    parts = [("Content-Type: application/json", facts)]
    for name, data in files:
        quoted = name.replace("\\", "_").replace('"', "_").encode("ascii", "replace").decode()
        parts.append((f'Content-Type: image/png\r\nContent-Disposition: attachment; filename="{quoted}"', data))
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return Response(body + f"--{boundary}--\r\n".encode(), media_type=f"multipart/mixed; boundary={boundary}")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
