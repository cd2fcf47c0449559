"""Where each training step's figures go: JSON lines in the run always; TensorBoard, W&B and MLflow when asked for.

Not in the paper. Decided: rank 0 alone tracks, and not through Ray Train's ``report``, which waits for a poll.
A tracker that does not start is an error before the first step; one that breaks later is named once and left out, for
it must not cost the training. A resumed run goes on in the same place. Keys are read from the environment of the
cluster's nodes by the trackers themselves; what they are told of the configuration has no paths and no addresses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from dhdiff_ray.config import Config
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

PROJECT = "dhdiff-ray"
"""Project of W&B and experiment of MLflow where ``WANDB_PROJECT`` or ``MLFLOW_EXPERIMENT_NAME`` names no other."""
TAG = "dhdiff_ray.run"
"""Tag that an MLflow run is found again by."""
AT_ONCE = 200
"""Steps sent to MLflow together; it answers each request before the next step."""
SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

Figures = Mapping[str, float]


class Tracker(Protocol):
    """One place where figures go."""

    def log(self, done: int, figures: Figures) -> None:
        """Take the figures of the step that makes ``done`` steps."""
        ...

    def flush(self) -> None:
        """Write what waits; called with each checkpoint."""
        ...

    def close(self) -> None:
        """Write what waits and end."""
        ...


class Trackers:
    """All of one category's trackers."""

    def __init__(self, run: Run, category: str, start: int, tell: Callable[..., None] = lambda **_: None) -> None:
        """Open them.

        Args:
            run: its configuration names the trackers.
            category: which one is trained.
            start: steps already done; later figures of an earlier attempt are dropped or kept, never told twice.
            tell: takes ``event`` and ``message`` of a tracker that breaks later.

        Raises:
            ValueError: one is not installed or does not start; it says what to do.
        """
        refuse_missing(run.config.train.trackers)
        self.lines = Lines(run.folder, category, start)
        self.tell = tell
        self.asked: dict[str, Tracker] = {}
        for name in run.config.train.trackers:
            try:
                self.asked[name] = KINDS[name](run, category, start)
            except Exception as error:  # noqa: BLE001  each of them has errors of its own
                raise ValueError(
                    f"train.trackers: {name} did not start ({without_secrets(str(error))}); mend that on the cluster's "
                    f"nodes, or leave {name} out of train.trackers"
                ) from None

    def log(self, done: int, figures: Figures) -> None:
        """Take the figures of one step."""
        self.lines.log(done, figures)
        self._each(lambda tracker: tracker.log(done, figures))

    def flush(self) -> None:
        """Write what waits."""
        self.lines.flush()
        self._each(lambda tracker: tracker.flush())

    def close(self) -> None:
        """End all of them."""
        self.lines.close()
        self._each(lambda tracker: tracker.close())

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.asked.items()):
            try:
                do(tracker)
            except Exception as error:  # noqa: BLE001  somebody else's service must not cost the training
                del self.asked[name]
                self.tell(event="warning", message=f"{name} is left out from here on: {without_secrets(str(error))}")


def refuse_missing(names: Iterable[str]) -> None:
    """Refuse trackers whose package is not there.

    Raises:
        ValueError: it says what to install.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"train.trackers asks for {', '.join(missing)}, which is not installed on this node; on every node: "
            f"pip install 'dhdiff-ray[{','.join(missing)}]'"
        )


def without_secrets(text: str) -> str:
    """A message without keys and without what stands before the @ of an address."""
    for value in filter(None, (os.environ.get(name) for name in SECRETS)):
        text = text.replace(value, "***")
    return re.sub(r"://[^/\s@]+@", "://***@", text)


def public_settings(config: Config, category: str) -> dict[str, Any]:
    """What trackers are told of a run: what determines it, but not where things lie."""
    parts = config.model_dump(mode="json", include={"data", "model", "train"}, exclude={"data": {"root"}})
    flat = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    if config.sources:
        flat["sources"] = [s.model_dump(mode="json", exclude={"root"}) for s in config.sources]
    return {"category": category, "run.name": config.run.name, "run.seed": config.run.seed, **flat}


class Lines:
    """``metrics/<category>.jsonl`` in the run: one JSON object per step."""

    def __init__(self, folder: RunFolder, category: str, start: int) -> None:
        self.folder, self.name = folder, f"metrics/{category}.jsonl"
        self.text = ""
        if folder.exists(self.name):
            kept = folder.read_bytes(self.name).decode(errors="replace").splitlines(keepends=True)
            self.text = "".join(line for line in kept if 0 < _step(line) <= start)
        folder.write_bytes(self.name, self.text.encode())
        place = Path(folder.path(self.name))
        self.stream = place.open("a", buffering=1) if folder.is_local else None

    def log(self, done: int, figures: Figures) -> None:
        """Append a line; on a storage that cannot append it waits for the next checkpoint."""
        line = json.dumps({"step": done, **figures, "time": round(time.time(), 3)}) + "\n"
        if self.stream is not None:
            self.stream.write(line)
        else:
            self.text += line

    def flush(self) -> None:
        """Write what waits."""
        if self.stream is None:
            self.folder.write_bytes(self.name, self.text.encode())

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        if self.stream is not None:
            self.stream.close()


class TensorBoard:
    """``tensorboard/<category>`` in the run; figures after a resumed step are taken back."""

    def __init__(self, run: Run, category: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.name = run.folder, f"tensorboard/{category}"
        self.place = run.folder.path(self.name) if run.folder.is_local else tempfile.mkdtemp(prefix="dhdiff-")
        self.writer = SummaryWriter(self.place, purge_step=start + 1)

    def log(self, done: int, figures: Figures) -> None:
        """Take one step."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, done)

    def flush(self) -> None:
        """Write what waits; files of a remote run are copied there."""
        self.writer.flush()
        if not self.folder.is_local:
            for file in Path(self.place).iterdir():
                self.folder.write_bytes(f"{self.name}/{file.name}", file.read_bytes())

    def close(self) -> None:
        """Write what waits and end."""
        self.flush()
        self.writer.close()


class WandB:
    """A run of W&B whose id is that of run and category; steps it has already are not sent again."""

    def __init__(self, run: Run, category: str, start: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=re.sub(r"[^\w-]", "-", f"{run.config.run.name}-{category}"),
            name=f"{run.config.run.name} {category}",
            group=run.config.run.name,
            resume="allow",
            config=public_settings(run.config, category),
            dir=run.folder.path() if run.folder.is_local and "WANDB_DIR" not in os.environ else None,
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )

    def log(self, done: int, figures: Figures) -> None:
        """Take one step."""
        if done >= self.run.step:
            self.run.log(dict(figures), step=done)

    def flush(self) -> None:
        """It sends by itself."""

    def close(self) -> None:
        """Send what waits and end."""
        self.run.finish()


class MLflow:
    """A run of MLflow, found again by a tag; steps it has already are not sent again."""

    def __init__(self, run: Run, category: str, start: int) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric, Param, RunStatus  # pyright: ignore[reportMissingImports]

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ValueError("MLFLOW_TRACKING_URI is not set there: http://HOST:5000, or a database that all nodes see")
        self.metric, self.running = Metric, RunStatus.to_string(RunStatus.RUNNING)
        self.client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment is not None else self.client.create_experiment(name)
        key = f"{run.config.run.name}/{category}"
        earlier = self.client.search_runs([place], f"tags.`{TAG}` = '{key}'", max_results=1)
        self.waiting: list[Any] = []
        if earlier:
            self.id = earlier[0].info.run_id
            self.client.update_run(self.id, status=self.running)
            self.last = max((m.step for m in self.client.get_metric_history(self.id, "loss")), default=0)
        else:
            self.id, self.last = self.client.create_run(place, tags={TAG: key}, run_name=key).info.run_id, 0
            settings = [Param(k, str(v)) for k, v in public_settings(run.config, category).items()]
            for first in range(0, len(settings), 100):
                self.client.log_batch(self.id, params=settings[first : first + 100])

    def log(self, done: int, figures: Figures) -> None:
        """Take one step; sent with others."""
        if done <= self.last:
            return
        now = int(time.time() * 1000)
        self.waiting += [self.metric(name, value, now, done) for name, value in figures.items()]
        if len(self.waiting) >= AT_ONCE * len(figures):
            self.flush()

    def flush(self) -> None:
        """Send what waits, at most 1000 figures at once, as MLflow allows."""
        for first in range(0, len(self.waiting), 1000):
            self.client.log_batch(self.id, metrics=self.waiting[first : first + 1000])
        self.waiting = []

    def close(self) -> None:
        """Send what waits and end the run."""
        self.flush()
        self.client.set_terminated(self.id)


KINDS: dict[str, Callable[[Run, str, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def _step(line: str) -> int:
    """Step of a line, or 0 where a killed worker left half of one."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0
