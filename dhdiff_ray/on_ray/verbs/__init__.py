"""The verbs of a job, one module each: ``python -m dhdiff_ray.on_ray VERB config.json [--resume]``."""

from dhdiff_ray.run.status import STAGES

WRITERS = (*STAGES, "all", "ablate")
"""Verbs that write to a run and so exclude each other; the endpoint and ``data verify`` do not."""
VERBS = {verb: f"{__name__}.{verb}" for verb in (*WRITERS, "verify")} | {"serve": "dhdiff_ray.on_ray.serve.up"}
"""Module of each verb: its ``main(config, resume)`` is the job. A stage's ``stage(run, events, category)`` does one
category of it."""
