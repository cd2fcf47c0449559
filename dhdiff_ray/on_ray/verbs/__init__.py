"""The verbs of a job, one module each: ``python -m dhdiff_ray.on_ray VERB config.json [--resume]``."""

VERBS = {
    "train": "dhdiff_ray.on_ray.verbs.train",
    "synthesize": "dhdiff_ray.on_ray.verbs.synthesize",
    "score": "dhdiff_ray.on_ray.verbs.score",
    "detect": "dhdiff_ray.on_ray.verbs.detect",
    "all": "dhdiff_ray.on_ray.verbs.all",
    "ablate": "dhdiff_ray.on_ray.verbs.ablate",
    "verify": "dhdiff_ray.on_ray.verbs.verify",
    "serve": "dhdiff_ray.on_ray.serve.up",
}
"""Module of each verb: its ``main(config, resume)`` is the job."""
STAGES = ("train", "synthesize", "score", "detect")
"""What every category goes through, in order: ``run(config, events, category)`` of these modules is one stage."""
WRITERS = (*STAGES, "all", "ablate")
"""Verbs that write to a run; an endpoint or a look at a dataset keeps nobody from it."""
