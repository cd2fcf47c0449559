"""Responses: pairs as JSON, ``multipart/mixed``, zip or a stream of lines, and errors as problem+json (RFC 9457).

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

from dhdiff_ray.serving.drawn import DrawnPair, Event, ScoreMap

PROBLEM = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error response: status, name, what is wrong and what to do."""
    return JSONResponse(problem_json(status, detail), status, dict(headers or {}), media_type=PROBLEM)


def problem_json(status: int, detail: str) -> dict[str, str | int]:
    """The same as an object."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def answer(pairs: Sequence[DrawnPair], kind: str) -> Response:
    """The pairs as ``json``, ``multipart`` or ``zip``."""
    if kind == "json":
        return JSONResponse({"pairs": [as_json(pair) for pair in pairs]})
    files: list[tuple[str, bytes]] = []
    for pair in pairs:
        stem = f"{pair.category}_{pair.defect}_{pair.seed}"
        files += [(f"{stem}.png", pair.image), (f"{stem}_mask.png", pair.mask)]
        files += [(f"{stem}_score_{name}.png", score_map.png) for name, score_map in (pair.score_maps or {}).items()]
    rows = [as_json(pair, pictures=False) for pair in pairs]
    return _zip(files, rows) if kind == "zip" else _multipart(files, rows)


def line(event: Event) -> str:
    """One line of a stream."""
    return json.dumps({"event": event.name, **as_json(event.values)}) + "\n"


def as_json(value: object, pictures: bool = True) -> Any:
    """A value as JSON has it: pictures in base64 or left out, a pair as an object, without maps if there are none."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, DrawnPair | ScoreMap):
        value = {name: part for name, part in vars(value).items() if name != "score_maps" or part is not None}
    if isinstance(value, Mapping):
        kept = {name: part for name, part in value.items() if pictures or not isinstance(part, bytes)}
        return {name: as_json(part, pictures) for name, part in kept.items()}
    return value


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
