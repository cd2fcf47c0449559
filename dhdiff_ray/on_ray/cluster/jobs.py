"""Send a verb to a cluster through Ray's Jobs API, follow it, stop it.

Not in the paper. Decided: a job is ``python -m dhdiff_ray.on_ray VERB config.json``, the same on every cluster. A
private cluster shares our disk and our Python, so nothing is uploaded (a job starts about 3 s sooner); any other gets
``config.json`` as its working folder and this package as a module. What the cluster cannot hold is refused: Ray alone
would leave it pending for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dhdiff_ray.config import Config, DataConfig, Source
from dhdiff_ray.on_ray.cluster.checks import (
    check_answers,
    check_closed,
    check_room,
    check_versions,
    node_resources,
    reached,
    without_addresses,
)
from dhdiff_ray.on_ray.cluster.local import JOB_ENVIRONMENT, ClusterError, LocalCluster, auth_env
from dhdiff_ray.on_ray.ray_private import SERVER_LOGS, dashboard_answer, is_without_agent
from dhdiff_ray.on_ray.verbs import WRITERS
from dhdiff_ray.run.events import REFUSED

ENTRY = "dhdiff_ray.on_ray"
"""What a job runs; the verb is its first argument."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
RECONNECTS = 5
"""Times that a log's connection is opened again after a cut."""
AGENT_SECONDS = 60.0
"""How long a cluster that has just come up may take until it accepts jobs."""
Reads = TypeVar("Reads", DataConfig, Source)
"""What names a loader and a folder."""


@dataclass(frozen=True)
class JobInfo:
    """One job as the cluster knows it."""

    id: str
    verb: str
    run: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    driver_exit_code: int | None
    message: str
    started: float | None
    """Seconds since the epoch."""
    ended: float | None
    metadata: dict[str, str]

    @property
    def exit_code(self) -> int:
        """Exit code of the command that followed the job: 0 done, 2 configuration refused, 3 failed, 4 stopped."""
        if self.status == "FAILED":
            return 2 if self.driver_exit_code == REFUSED else 3
        return 4 if self.status == "STOPPED" else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, cluster: str | LocalCluster, called: str | None = None) -> None:
        """Connect.

        Args:
            cluster: address of a cluster's dashboard such as ``http://127.0.0.1:8265``, or our own private cluster.
            called: the name or address the user typed, for the commands in messages.

        Raises:
            ClusterError: nobody answers there, or the token is missing or wrong.
        """
        self.local = cluster if isinstance(cluster, LocalCluster) else None
        address = cluster.address if isinstance(cluster, LocalCluster) else cluster
        self.address = address if "://" in address else f"http://{address}"
        self.called = called or self.address
        self._reached = partial(reached, self.address)
        auth_env()
        if self.local is None:
            check_answers(self.address)
        from ray.job_submission import JobSubmissionClient

        for name in SERVER_LOGS:
            logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)

        with self._reached(), without_addresses():  # Ray lets these win over ours
            self._client = JobSubmissionClient(self.address)

    def submit(
        self, verb: str, config: Config, *, resume: bool = False, job_id: str | None = None, check: bool = True
    ) -> str:
        """Send one verb; returns the job's id.

        Args:
            verb: one of ``VERBS``.
            config: relative local paths in it are made absolute.
            resume: go on with what the run already has.
            job_id: a name of your own, unique on the cluster.
            check: refuse what the cluster as it is now cannot hold; switch off where it grows by itself.

        Raises:
            ClusterError: unreachable or unauthorised.
            ConfigError: more is asked for than the cluster has.
            ValueError: the id is taken.
        """
        config = absolute(config)
        if check:
            with self._reached():
                check_room(node_resources(self.address), verb, config)
        name = job_id or f"{verb}-{config.run.name}-{secrets.token_hex(3)}"
        metadata = {
            "verb": verb,
            "run": config.run.name,
            "storage": config.run.storage,
            "categories": ",".join(config.data.categories),
            "config_digest": config.digest(),
        }
        folder = self._folder_of(name)
        try:
            shipped, environment = self._ship(folder, config)
            command = (
                _python(self.local is not None) + f" -m {ENTRY} {verb} {shipped}" + (" --resume" if resume else "")
            )
            with self._reached():
                return self._send(entrypoint=command, submission_id=name, metadata=metadata, runtime_env=environment)
        finally:
            if self.local is None:
                shutil.rmtree(folder, ignore_errors=True)

    def follow(self, job_id: str) -> Iterator[str]:
        """The job's log, line by line, from its beginning until it has ended; survives a dropped connection.

        Raises:
            ClusterError: the cluster went away.
        """
        import aiohttp

        seen = cuts = 0
        with self._reached(job_id), asyncio.Runner() as runner:
            while True:
                rest, skip, ended = "", seen, False
                chunks = self._client.tail_job_logs(job_id)
                try:
                    while (chunk := runner.run(_next(chunks))) is not None:
                        *lines, rest = (rest + chunk).split("\n")
                        fresh, skip = lines[skip:], max(0, skip - len(lines))
                        seen += len(fresh)
                        yield from fresh
                    ended = self.status(job_id).status in ENDED
                except (aiohttp.ClientError, RuntimeError, OSError) as error:  # the connection was cut
                    cuts += 1
                    if cuts > RECONNECTS:
                        raise ClusterError(
                            f"lost the cluster at {self.address} ({type(error).__name__}); when it is back: "
                            f"dhdiff-ray jobs logs --follow {job_id} --address {self.called}"
                        ) from None
                if ended:
                    if rest:
                        yield rest
                    return
                time.sleep(2.0 if cuts else 0.2)

    def status(self, job_id: str) -> JobInfo:
        """One job.

        Raises:
            ValueError: the cluster knows no such job.
        """
        with self._reached(job_id):
            return _info(self._client.get_job_info(job_id))

    def wait(self, job_id: str, timeout: float = 30.0) -> JobInfo:
        """The job once it has ended, or as it is after ``timeout`` seconds."""
        limit = time.monotonic() + timeout
        while (info := self.status(job_id)).status not in ENDED and time.monotonic() < limit:
            time.sleep(0.1)
        return info

    def list(self, everything: bool = False) -> list[JobInfo]:
        """Our jobs, oldest first; ``everything`` adds those that others submitted."""
        with self._reached():
            jobs = [_info(detail) for detail in self._client.list_jobs() if detail.submission_id]
        return sorted((job for job in jobs if everything or job.verb), key=lambda job: job.started or 0)

    def logs(self, job_id: str) -> str:
        """The whole log so far."""
        with self._reached(job_id):
            return self._client.get_job_logs(job_id)

    def stop(self, job_id: str) -> bool:
        """Ask a job to end (SIGTERM, then SIGKILL after 3 s); False if it had already ended."""
        with self._reached(job_id):
            return self._client.stop_job(job_id)

    def remove(self, job_id: str) -> bool:
        """Forget a job that has ended, and its log.

        Raises:
            ValueError: it has not ended.
        """
        if (info := self.status(job_id)).status not in ENDED:
            raise ValueError(f"job {job_id} is {info.status}; stop it first: dhdiff-ray jobs stop {job_id}")
        with self._reached(job_id):
            return self._client.delete_job(job_id)

    def working_on(self, config: Config) -> JobInfo | None:
        """The job of this cluster that writes to the configuration's run now, if there is one."""
        config = absolute(config)
        place = {"run": config.run.name, "storage": config.run.storage}
        for job in self.list():
            if job.verb in WRITERS and job.status not in ENDED and place.items() <= job.metadata.items():
                return job
        return None

    def versions(self) -> dict[str, str]:
        """What the cluster runs: ``ray`` and, where it tells, ``python``."""
        with self._reached():
            versions = {"ray": dashboard_answer(self._client, "/api/version").json()["ray_version"]}
            answer = dashboard_answer(self._client, "/api/v0/cluster_metadata")
        metadata = answer.json().get("data") or {} if answer.ok else {}
        return versions | ({"python": metadata["pythonVersion"]} if "pythonVersion" in metadata else {})

    def resources(self) -> dict[str, float]:
        """Sum of all living nodes' resources, such as ``CPU`` and ``GPU``."""
        with self._reached():
            nodes = node_resources(self.address)
        return {name: sum(node.get(name, 0) for node in nodes) for name in {k for node in nodes for k in node}}

    def check_cluster(self, *, insecure: bool = False) -> None:
        """Refuse a cluster that would not run our jobs, or that anybody could use.

        Args:
            insecure: use a cluster without a token though it is not on this machine.

        Raises:
            ClusterError: unreachable, unauthorised, open to everybody, or of other versions.
        """
        check_versions(self.address, self.versions())
        if not insecure:
            with self._reached():
                mode = dashboard_answer(self._client, "/api/authentication_mode").json()
            check_closed(self.address, str(mode.get("authentication_mode")))

    def _send(self, **job: Any) -> str:
        """Submit; a cluster that has just come up refuses until its job agent runs, which takes long under load."""
        limit = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                return self._client.submit_job(**job)
            except RuntimeError as error:
                if not is_without_agent(error) or time.monotonic() > limit:
                    raise
                time.sleep(1.0)

    def _folder_of(self, name: str) -> Path:
        if self.local is None:
            return Path(tempfile.mkdtemp(prefix="dhdiff-job-"))
        folder = self.local.folder / "jobs" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _ship(self, folder: Path, config: Config) -> tuple[str, dict[str, Any]]:
        """Write the configuration; returns its path as the job sees it, and the job's runtime environment."""
        file = folder / "config.json"
        if self.local is not None:
            file.write_text(config.model_dump_json())
            return shlex.quote(str(file)), {}
        data = _shipped_loader(config.data, folder)
        sources = tuple(_shipped_loader(source, folder) for source in config.sources)
        config = config.model_copy(update={"data": data, "sources": sources})
        file.write_text(config.model_dump_json())
        variables = JOB_ENVIRONMENT | {k: os.environ[k] for k in ("HF_HUB_OFFLINE",) if k in os.environ}
        environment = {"working_dir": str(folder), "env_vars": variables, "excludes": ["**/__pycache__/", "*.pyc"]}
        return file.name, environment | {"py_modules": [str(Path(__file__).resolve().parents[2])]}


def absolute(config: Config) -> Config:
    """The configuration with local paths made absolute: the job starts in another folder."""
    storage = config.run.storage
    run = {} if "://" in storage else {"storage": str(Path(storage).expanduser().resolve())}
    return config.model_copy(
        update={
            "run": config.run.model_copy(update=run),
            "data": config.data.model_copy(update=_absolute_places(config.data)),
            "sources": tuple(source.model_copy(update=_absolute_places(source)) for source in config.sources),
        }
    )


def _absolute_places(data: DataConfig | Source) -> dict[str, str]:
    places: dict[str, str] = {}
    if data.root and "://" not in data.root:
        places["root"] = str(Path(data.root).expanduser().resolve())
    if data.dataset.endswith(".py"):
        places["dataset"] = str(Path(data.dataset).expanduser().resolve())
    return places


def _shipped_loader(data: Reads, folder: Path) -> Reads:
    """The configuration with a loader's own file, if it has one, copied to ``folder`` and named by its place there."""
    code = Path(data.dataset)
    if code.suffix != ".py" or not code.is_file():
        return data
    shutil.copy(code, folder)
    return data.model_copy(update={"dataset": code.name})


async def _next(chunks: Any) -> str | None:
    return await anext(chunks, None)


def _python(local: bool) -> str:
    """Shell words that start Python: ours if it exists there, else the cluster's; ``exec`` lets signals reach it."""
    ours = shlex.quote(sys.executable)
    return f"exec {ours}" if local else f"PY={ours}; test -x $PY || PY=python; exec $PY"


def _info(detail: Any) -> JobInfo:
    metadata = dict(detail.metadata or {})
    return JobInfo(
        id=detail.submission_id or detail.job_id or "",
        verb=metadata.get("verb", ""),
        run=metadata.get("run", ""),
        status=getattr(detail.status, "value", str(detail.status)),
        driver_exit_code=detail.driver_exit_code,
        message=detail.message or "",
        started=detail.start_time / 1000 if detail.start_time else None,
        ended=detail.end_time / 1000 if detail.end_time else None,
        metadata=metadata,
    )
