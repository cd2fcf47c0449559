"""How a verb starts inside a job: ``python -m dhdiff_ray.on_ray VERB config.json [--resume]``.

Not in the paper. Decided: an error that a user can mend becomes one line and an exit code; only a bug
shows a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import ray
from ray.exceptions import RayTaskError

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.on_ray.verbs import VERBS
from dhdiff_ray.run.events import REFUSED, tell

Verb = Callable[[Config, bool], int]
"""What a verb's module has as ``main``: (configuration, whether to go on with what is there) -> exit code."""
USAGE = "usage: python -m dhdiff_ray.on_ray VERB config.json [--resume]; verbs: " + ", ".join(VERBS)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a verb and leave the process with its exit code: 0 done, 1 failed, 2 usage, 78 configuration refused.

    Args:
        arguments: a verb, or a module with a ``main`` like theirs; the configuration's file; and ``--resume``, to go on
            with what is there.

    Raises:
        SystemExit: always.
    """
    words = [word for word in arguments if word != "--resume"]
    if len(words) != 2 or words[1].startswith("-") or not find_spec(VERBS.get(words[0], words[0])):
        _leave(USAGE, 2, 2)
    run(import_module(VERBS.get(words[0], words[0])).main, words[1], "--resume" in arguments)


def run(verb: Verb, file: str, resume: bool = False) -> NoReturn:
    """Run a verb that is already imported, as :func:`main` does.

    Raises:
        SystemExit: always.
    """
    try:
        config = Config.model_validate_json(Path(file).read_bytes())
        if "RAY_ADDRESS" in os.environ and not ray.is_initialized():
            ray.init(address="auto", logging_level=logging.ERROR)
        code = verb(config, resume)
    except (ValueError, OSError, RayTaskError) as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, ValueError | OSError):
            raise
        code, leave = (2, REFUSED) if isinstance(cause, ConfigError) else (1, 1)
        _leave(str(cause), code, leave, traceback.format_exc())
    raise SystemExit(code)


def _leave(message: str, code: int, leave: int, trace: str = "") -> NoReturn:
    """Tell why, as the event the command line shows as its error, and end; the trace is for `jobs logs` alone."""
    tell({"event": "failed", "message": message, "code": code} | ({"traceback": trace} if trace else {}))
    raise SystemExit(leave)


if __name__ == "__main__":
    main(sys.argv[1:])
