"""Request bodies: JSON, or a form with pictures as files.

Not in the paper. Decided: both become a ``PairQuery``. Forms are parsed in memory: a part never becomes a file, and its
file name is never read.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from dhdiff_ray.serving.questions import PairQuery, RefusedError

MAX_PARTS = 64
LONGEST_HEADER = 1024
"""Characters of a header with parameters."""
LONGEST_HEAD = 4096
"""Bytes of the headers of a form's part."""
PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
"""One parameter of a header; ``name*`` and ``name*0`` of RFC 2231 are other names, which nobody asks for."""
PICTURES = ("base", "reference", "reference_mask", "control_mask")
LISTS = ("points", "boxes")


def read_query(content_type: str, body: bytes, category: str | None) -> PairQuery:
    """The question in a request's body.

    Args:
        content_type: the header, with its parameters.
        body: whole.
        category: from the address; None where the body names it.

    Raises:
        RefusedError: 400 for what cannot be read, 415 for another type, 422 for what does not fit.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"the body is not JSON: {str(error)[:200]}") from None
        if not isinstance(fields, dict):
            raise RefusedError(422, 'the body must be a JSON object such as {"defect": "scratch", "seed": 1}')
    elif kind == "multipart/form-data":
        fields = _form_fields(parameters(content_type).get("boundary", ""), body)
    else:
        raise RefusedError(415, "send application/json or multipart/form-data, and say which in Content-Type")
    if category is not None:
        if fields.get("category", category) != category:
            raise RefusedError(422, f"the address says category {category!r}, the body another; leave the latter out")
        fields["category"] = category
    try:
        return PairQuery.model_validate(fields)
    except ValidationError as error:
        faults = [f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}" for e in error.errors()[:8]]
        raise RefusedError(422, "; ".join(faults)) from None


def parameters(header: str) -> dict[str, str]:
    """The parameters of a header's value, by lower-case name; of one that comes twice the first."""
    if len(header) > LONGEST_HEADER:
        raise RefusedError(400, f"a header has {len(header)} characters; at most {LONGEST_HEADER}")
    found: dict[str, str] = {}
    for name, quoted, plain in PARAMETER.findall(header):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    return found


def _form_fields(boundary: str, body: bytes) -> dict[str, Any]:
    """Fields of a ``multipart/form-data`` body; pictures as bytes, lists and numbers as JSON says them."""
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise RefusedError(400, "the form's Content-Type names no usable boundary")
    mark = b"--" + boundary.encode()
    if not body.startswith(mark + b"\r\n"):
        raise RefusedError(400, "the form does not begin with its boundary")
    parts: list[tuple[int, int]] = []  # where they are: a body of many megabytes is copied once, into its fields
    begin, between = len(mark), b"\r\n" + mark
    while (end := body.find(between, begin)) >= 0:
        parts.append((begin, end))
        begin = end + len(between)
    if body[begin : begin + 2] != b"--" or body[begin + 2 :].strip(b"\r\n"):
        raise RefusedError(400, "the form is cut short: its last boundary is missing")
    if len(parts) > MAX_PARTS:
        raise RefusedError(400, f"the form has {len(parts)} parts; at most {MAX_PARTS}")
    fields: dict[str, Any] = {}
    for begin, end in parts:
        head_at = begin + 2 * body.startswith(b"\r\n", begin, end)
        gap = body.find(b"\r\n\r\n", head_at, end)
        if not head_at <= gap <= head_at + LONGEST_HEAD:
            raise RefusedError(400, "a part of the form has no end of its headers")
        name = _part_name(body[head_at:gap].decode("latin-1"))
        if not name:
            raise RefusedError(400, "a part of the form has no name")
        if name in fields:
            raise RefusedError(422, f"the form has {name} twice")
        fields[name] = _value(name, body[gap + 4 : end])
    return fields


def _part_name(head: str) -> str:
    for text in head.split("\r\n"):
        header, _, value = text.partition(":")
        if header.strip().lower() == "content-disposition":
            return parameters(value).get("name", "")
    return ""


def _value(name: str, content: bytes) -> Any:
    if name in PICTURES:
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise RefusedError(422, f"{name} is not text in UTF-8") from None
    if name in LISTS:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise RefusedError(422, f"{name} must be JSON such as [[12, 30]]") from None
    return text


def response_kind(query: PairQuery, accept: str) -> str:
    """``json``, ``multipart`` or ``zip``: what the question says, else what ``Accept`` says first."""
    kinds = {"multipart/mixed": "multipart", "application/zip": "zip", "application/json": "json"}
    words = [word.strip() for word in re.split(r"[,;]\s*", accept)]
    return query.response or next((kinds[word] for word in words if word in kinds), "json")
