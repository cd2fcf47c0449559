"""Who may ask: bearer tokens from a file, how often and how much each may, and pages of other sites kept out.

Not in the paper. The file has a token per line: ``TOKEN``, ``NAME TOKEN`` or ``NAME TOKEN REQUESTS_PER_MINUTE``; lines
that begin with ``#`` are left out. Decided: every key is compared, in constant time; the file is read again every
second, so that a key is taken away without a restart, and a file that is gone, empty, damaged or open to others lets
nobody in; without keys only this machine's own names are answered to, and no request that another site's page sends.
What a request costs is its pairs times their denoising steps; one that is refused, or finds the endpoint busy, costs
nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dhdiff_ray.serving.questions import BusyError, RefusedError

LOG = logging.getLogger("dhdiff_ray.serve")
SHORTEST = 16
"""Fewest characters of a token."""
READ_SECONDS = 1.0
"""How often the file is read."""
LOOSE = 0o026
"""Rights that a token file gives to nobody: the group writes, others read or write."""
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?")
"""A name or address, with or without a port; whatever else stands there is read differently by different programs."""


@dataclass(frozen=True)
class Key:
    """One line of the token file; the token itself is not kept."""

    name: str
    digest: bytes
    per_minute: float


class Budget:
    """A minute's worth of something for each key, which fills steadily.

    Args:
        what: its name, in the words of a refusal.
        clock: seconds.
    """

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self.what, self.clock = what, clock
        self._left: dict[str, tuple[float, float]] = {}
        """What is left and when it was counted, by key."""

    def take(self, key: str, per_minute: float, amount: float = 1.0) -> None:
        """Take an amount; what is more than a minute's worth waits for a full minute's, and leaves a debt.

        Raises:
            RefusedError: 429, there is not so much left.
        """
        if not per_minute:
            return
        now, most = self.clock(), max(per_minute, 1.0)
        left, at = self._left.get(key, (most, now))
        left, needed = min(most, left + (now - at) * per_minute / 60), min(amount, most)
        if left < needed:
            wait = int((needed - left) * 60 / per_minute) + 1
            message = f"{per_minute:g} {self.what} a minute; ask again in {wait} s"
            raise RefusedError(429, message, {"Retry-After": str(wait)})
        self._left[key] = left - amount, now

    def give_back(self, key: str, amount: float) -> None:
        """What was taken was not used."""
        if key in self._left:
            left, at = self._left[key]
            self._left[key] = left + amount, at


class Access:
    """Lets requests in.

    Args:
        file: with tokens; nothing lets everybody in who is on this machine.
        per_minute: requests per minute of a key whose line says nothing; 0 does not limit.
        steps_per_minute: denoising steps per minute of a key; 0 does not limit.
        clock: seconds.

    Raises:
        ValueError: the file cannot be used.
    """

    def __init__(
        self,
        file: str = "",
        per_minute: float = 0.0,
        steps_per_minute: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file, self.per_minute, self.steps_per_minute, self.clock = file, per_minute, steps_per_minute, clock
        self._keys = read_keys(file, per_minute) if file else []
        self._read_at, self._fault = clock(), ""
        self._requests, self._steps = Budget("requests", clock), Budget("denoising steps", clock)

    def admit(self, method: str, headers: Mapping[str, str]) -> str:
        """The name of the key that is let in, or nothing where none is needed.

        Raises:
            RefusedError: 400 a host that is none, 401 no or a wrong token, 403 another site's page, 421 a name that is
                not ours, 429 too often.
        """
        self.check_host(headers)
        self._refuse_other_sites(method, headers)
        if not self.file:
            return ""
        self._read_again()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        digest = _digest(token.strip())
        same = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]  # every key is compared
        if not same or scheme.lower() != "bearer":
            ask = "send the endpoint's token: Authorization: Bearer TOKEN"
            closed = "no key is valid at present; whoever runs the endpoint finds the reason in its log"
            raise RefusedError(401, closed if self._fault else ask, {"WWW-Authenticate": "Bearer"})
        key = same[-1]
        self._requests.take(key.name, key.per_minute)
        return key.name

    @contextmanager
    def charged(self, key: str, steps: float) -> Iterator[None]:
        """Charge a key for denoising steps, unless what is done in the block is refused or finds all busy.

        Raises:
            RefusedError: 429, too much.
        """
        self._steps.take(key, self.steps_per_minute, steps)
        try:
            yield
        except (RefusedError, BusyError):
            self._steps.give_back(key, steps)
            raise

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse what no name is, and without keys every name but this machine's own.

        Raises:
            RefusedError: 400 or 421.
        """
        text = headers.get("host", "")
        match = HOST.fullmatch(text)
        if text and match is None:
            raise RefusedError(400, "Host must be a name or an address, with or without a port")
        if not self.file and not is_loopback(match[1].strip("[]").lower() if match else ""):
            raise RefusedError(421, "without tokens this endpoint answers to localhost only; use that name")

    def _refuse_other_sites(self, method: str, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
        if foreign or (method != "GET" and headers.get("sec-fetch-site") == "cross-site"):
            raise RefusedError(403, "pages of other sites may not ask; open the endpoint's own page at /")

    def _read_again(self) -> None:
        """Read the file again; one that cannot be used leaves no key valid, and is told once."""
        if self.clock() - self._read_at < READ_SECONDS:
            return
        self._read_at, before = self.clock(), self._fault
        try:
            self._keys, self._fault = read_keys(self.file, self.per_minute), ""
        except ValueError as error:
            self._keys, self._fault = [], str(error)
        if self._fault and self._fault != before:
            LOG.error("nobody is let in: %s", self._fault)
        elif before and not self._fault:
            LOG.warning("%s can be used again: %d keys are valid", self.file, len(self._keys))


def read_keys(file: str, per_minute: float = 0.0) -> list[Key]:
    """The keys in a file.

    Raises:
        ValueError: no such file, one that others may read, no token in it, or one that is easily guessed.
    """
    keys: list[Key] = []
    for number, token, name, rate in _lines(file, per_minute):
        if len(token) < SHORTEST:
            raise ValueError(
                f"the token in {file}, line {number}, has {len(token)} characters; make one: openssl rand -hex 32"
            )
        if name in [key.name for key in keys]:
            raise ValueError(f"{file}, line {number}: a second key {name!r}; give each its own name")
        keys.append(Key(name, _digest(token), rate))
    if not keys:
        raise ValueError(f"{file} holds no token; make one: openssl rand -hex 32 > {file}; chmod 600 {file}")
    return keys


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def first_token(file: str) -> str:
    """The first token in a file, for a client on this machine.

    Raises:
        ValueError: as ``read_keys``.
    """
    read_keys(file)
    return next(_lines(file, 0.0))[1]


def _lines(file: str, per_minute: float) -> Iterator[tuple[int, str, str, float]]:
    """Number, token, name and rate of each line that holds a key."""
    try:
        mode = Path(file).stat().st_mode & 0o777
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the endpoint's token file cannot be read: {error}") from None
    if os.name == "posix" and mode & LOOSE:
        raise ValueError(f"others on this machine may use the tokens in {file} (mode {mode:o}); type: chmod 600 {file}")
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rate = float(words[2]) if len(words) > 2 else per_minute
        except ValueError:
            rate = -1.0
        if len(words) > 3 or not 0 <= rate < float("inf"):
            raise ValueError(f"{file}, line {number}: write TOKEN, NAME TOKEN or NAME TOKEN REQUESTS_PER_MINUTE")
        token = words[1] if len(words) > 1 else words[0]
        yield number, token, words[0] if len(words) > 1 else f"line {number}", rate


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
