"""Two categories trained at once, one core each, against one after the other with both cores each.

Both ways use the same cluster, the same code, the same steps and the same total cores; start-up is included.
"""

import json
import platform
import tempfile
import time
from pathlib import Path

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.on_ray.cluster.local import local_cluster

RESULT = Path(__file__).parent / "results" / "side_by_side.json"
STEPS = 150
TARGET = 0.65


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as temporary:
        root = Path(temporary) / "images"
        generate(root, resolution=64, defects_per_type=20, train_good=20, test_good=2)
        with local_cluster(num_cpus=2):
            at_once = _train(temporary, root, "at_once", 1, [["capsule", "mesh"]])
            in_turn = _train(temporary, root, "in_turn", 2, [["capsule"], ["mesh"]])
    figures = {
        "at_once_seconds": round(at_once, 1),
        "one_after_the_other_seconds": round(in_turn, 1),
        "ratio": round(at_once / in_turn, 3),
        "target": TARGET,
        "steps_per_category": STEPS,
        "cores": 2,
        "processor": platform.processor() or platform.machine(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def _train(storage: str, root: Path, name: str, cores: int, rounds: list[list[str]]) -> float:
    from dhdiff_ray.on_ray.verbs.train import main as train

    start = time.monotonic()
    for categories in rounds:
        loaded = load_config(
            preset="tiny",
            flags={
                "run.name": ("run", f"{name}-{'-'.join(categories)}"),
                "run.storage": ("run", storage),
                "data.dataset": ("run", "procedural"),
                "data.root": ("run", str(root)),
                "data.categories": ("run", categories),
                "train.steps": ("run", STEPS),
                "model.backbone": ("run", ""),
                "train.checkpoint_every": ("run", STEPS),
                "train.cpus_per_worker": ("run", cores),
            },
        )
        if code := train(loaded.config):
            raise SystemExit(code)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
