"""Names for clusters: ``--address lab`` instead of an address and a token, from one small file.

``~/.config/dhdiff-ray/clusters.toml`` (or the file that DHDIFF_CLUSTERS names)::

    [lab]
    address = "https://ray.lab.example:8265"
    token_file = "~/.ray/lab.token"

Decided: a token is a file's path, never the token itself; ``local`` is the cluster that ``cluster up`` started.
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

from dhdiff_ray.config.load import ConfigError, nearest

VARIABLE = "DHDIFF_CLUSTERS"
KEYS = {"address", "token_file"}


def resolved(address: str) -> str:
    """The address behind a name; an address stays as it is. The profile's token is used from now on.

    Raises:
        ConfigError: no such name, an unknown key, or a token that others may read.
    """
    if "://" in address or ":" in address or address == "auto":
        return address
    from dhdiff_ray.on_ray.cluster.standing import standing

    there = standing()
    local = {"local": {"address": there.address, "token_file": str(there.token_file)}} if there else {}
    profiles = {**local, **_read()}
    if address not in profiles and address == "local":
        raise ConfigError("no cluster stands on this machine; start one: dhdiff-ray cluster up")
    if address not in profiles:
        hint = nearest(address, list(profiles))
        names = f"it has: {', '.join(sorted(profiles))}" if profiles else "and there is no such file yet"
        raise ConfigError(
            f"no cluster named {address!r} in {profile_file()}{hint}; {names}. An address looks like http://HOST:8265"
        )
    profile = profiles[address]
    if token := profile.get("token_file"):
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(private(Path(token).expanduser()))
        os.environ["RAY_AUTH_MODE"] = "token"
    return profile["address"]


def profile_file() -> Path:
    """Where the names are."""
    given = os.environ.get(VARIABLE)
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return Path(given) if given else base / "dhdiff-ray" / "clusters.toml"


def private(file: Path) -> Path:
    """A token's file that nobody else may read.

    Raises:
        ConfigError: it is not there, or others may read it.
    """
    if not file.is_file():
        raise ConfigError(f"the token file {file} is not there; `ray get-auth-token` on the head node prints the token")
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ConfigError(f"others on this machine may read the token in {file}; type: chmod 600 {file}")
    return file


def _read() -> dict[str, dict[str, str]]:
    file = profile_file()
    if not file.is_file():
        return {}
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    for name, profile in content.items():
        if not isinstance(profile, dict) or "address" not in profile:
            raise ConfigError(f'[{name}] in {file} needs: address = "http://HOST:8265"')
        if unknown := sorted(set(profile) - KEYS):
            raise ConfigError(f"[{name}] in {file}: unknown key {unknown[0]!r}; there are: {', '.join(sorted(KEYS))}")
    return content
