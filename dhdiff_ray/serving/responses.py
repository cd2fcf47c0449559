"""What goes back: pairs as JSON, ``multipart/mixed`` or zip, and errors as problem+json (RFC 9457).

Not in the paper. Decided: an answer holds no date and no request's name, so that equal pairs are equal bytes.
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

PROBLEM = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error: its status, its name, what is wrong and what to do."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    value = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(value, status, dict(headers or {}), media_type=PROBLEM)


def answer(pairs: Sequence[dict[str, Any]], kind: str) -> Response:
    """The pairs.

    Args:
        pairs: each with ``image`` and ``mask`` as base64 PNGs, what it was made from, and ``score_maps`` if asked for.
        kind: ``json``, ``multipart`` or ``zip``.
    """
    if kind == "json":
        return JSONResponse({"pairs": list(pairs)})
    rows: list[dict[str, Any]] = []
    files: list[tuple[str, bytes]] = []
    for pair in pairs:
        row = {name: value for name, value in pair.items() if name not in ("image", "mask", "score_maps")}
        stem, maps = f"{row['category']}_{row['defect']}_{row['seed']}", pair.get("score_maps")
        parts = {"": pair["image"], "_mask": pair["mask"]}
        parts |= {f"_score_{name}": told["png"] for name, told in (maps or {}).items()}
        files += [(f"{stem}{end}.png", base64.b64decode(text)) for end, text in parts.items()]
        if maps is not None:
            row["score_maps"] = {name: {"low": told["low"], "high": told["high"]} for name, told in maps.items()}
        rows.append(row)
    about = json.dumps({"pairs": rows}, ensure_ascii=False).encode()
    return _zip(files, rows) if kind == "zip" else _multipart(files, about)


def _zip(files: Sequence[tuple[str, bytes]], rows: Sequence[dict[str, Any]]) -> Response:
    buffer = io.BytesIO()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (*files, ("metadata.jsonl", lines)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    headers = {"Content-Disposition": 'attachment; filename="pairs.zip"'}
    return Response(buffer.getvalue(), media_type="application/zip", headers=headers)


def _multipart(files: Sequence[tuple[str, bytes]], about: bytes) -> Response:
    boundary = "pair-" + hashlib.sha256(about + b"".join(data for _, data in files)).hexdigest()[:32]
    parts = [("Content-Type: application/json", about)]
    for name, data in files:
        quoted = name.replace("\\", "_").replace('"', "_").encode("ascii", "replace").decode()
        parts.append((f'Content-Type: image/png\r\nContent-Disposition: attachment; filename="{quoted}"', data))
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return Response(body + f"--{boundary}--\r\n".encode(), media_type=f"multipart/mixed; boundary={boundary}")
