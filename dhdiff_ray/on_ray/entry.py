"""How a verb starts inside a job: ``python -m dhdiff_ray.on_ray.train config.json [--resume]``.

Not in the paper. Decided: what a user can mend becomes one line and an exit code, never a traceback;
a fault of ours keeps its traceback.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import RayTaskError

from dhdiff_ray.config import Config
from dhdiff_ray.config_layers import ConfigError
from dhdiff_ray.on_ray.events import PREFIX

Main = Callable[[Config, bool], int]
"""What a verb exposes: (configuration, whether to go on with what is there) -> exit code."""


def entry(main: Main, arguments: Sequence[str] | None = None) -> None:
    """Run a verb and leave the process with its exit code; call it under ``if __name__ == "__main__"``.

    Args:
        main: the verb.
        arguments: what was typed; None takes ``sys.argv``.

    Raises:
        SystemExit: always; 0 done, 1 failed, 2 configuration or usage.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    resume = "--resume" in words
    files = [word for word in words if word != "--resume"]
    if len(files) != 1 or files[0].startswith("-"):
        _leave("usage: python -m dhdiff_ray.on_ray.VERB config.json [--resume]", 2)
    try:
        config = Config.model_validate_json(Path(files[0]).read_bytes())
        if "RAY_ADDRESS" in os.environ and not ray.is_initialized():
            ray.init(address="auto", logging_level=logging.ERROR)
        code = main(config, resume)
    except (ValueError, OSError, RayTaskError) as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, ValueError | OSError):
            raise
        _leave(str(cause), 2 if isinstance(cause, ConfigError) else 1, traceback.format_exc())
    raise SystemExit(code)


def end_at_once(message: str) -> NoReturn:
    """Tell why and end the process from any thread, with the exit code of a failed job and without unwinding."""
    _tell({"event": "failed", "message": message, "code": 1})
    os._exit(1)


def _leave(message: str, code: int, trace: str = "") -> NoReturn:
    """Tell why, as the event the command line shows as its error, and end; the trace is for `jobs logs` alone."""
    _tell({"event": "failed", "message": message, "code": code} | ({"traceback": trace} if trace else {}))
    raise SystemExit(code)


def _tell(record: dict[str, Any]) -> None:
    sys.stdout.write(PREFIX + json.dumps(record) + "\n")
    sys.stdout.flush()
