"""What products cost over one foundation: 200 on disk, and a sampler's memory with 1, 10 and 50 of them opened.

    python -m benchmarks.adapters STORAGE --root DIR

Two products are trained for a few steps, by LoRA and in full; the others are copies of them with other values. Memory
is that of a process with the endpoint's sampler in it, after a step was drawn with every product it holds: resident
(RSS) and its own (USS). DIR holds drawn images: ``dhdiff-ray data make --root DIR --category all``.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file

from dhdiff_ray.config.load import load_config
from dhdiff_ray.run.damage import promises_below
from dhdiff_ray.run.foundation import weights_hash
from dhdiff_ray.run.run import Run
from dhdiff_ray.serving.sampler import SamplerCore
from dhdiff_ray.training.loop import train_category

RESULT = Path(__file__).parent / "results" / "adapters.json"
CATEGORIES = ("capsule", "mesh")
WAYS = ("lora", "full")
HELD = (1, 10, 50)
MB = 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("--root", required=True)
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--memory", choices=WAYS, help="in a process of its own: measure this way's run")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory:
        print(json.dumps(memory(configured(asked, asked.memory))))
        return
    figures = {"foundation": "dhdiff-ray/tiny", "products": asked.products, "steps": asked.steps}
    figures |= {"torch": torch.__version__, "ways": {}}
    for way in WAYS:
        run = Run(configured(asked, way))
        run.begin(run.scan(lambda *_, **__: None))
        for category in CATEGORIES:
            train_category(run, category, print)
        copies(Path(run.folder.path("models")), asked.products)
        row = disk(Path(run.folder.path("models")))
        done = subprocess.run([sys.executable, "-m", "benchmarks.adapters", *sys.argv[1:], "--memory", way],
                              stdout=subprocess.PIPE, check=True)  # fmt: skip
        figures["ways"][way] = row | {"memory": json.loads(done.stdout.splitlines()[-1])}
        print(way, json.dumps(figures["ways"][way]), flush=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


def configured(asked, way):
    """The run of one way."""
    sets = [f'run.storage="{asked.storage}"', f'data.root="{asked.root}"', "data.dataset=procedural", f"run.name={way}"]
    sets += [f"train.adapt={way}", f"train.steps={asked.steps}", f"serve.models_held={max(HELD)}", "run.seed=0"]
    return load_config(preset="tiny", sets=(*sets, f"data.categories={list(CATEGORIES)}")).config


def copies(models, products):
    """Fill up with copies whose weights are other numbers, and whose files have the hashes of that."""
    random = torch.Generator().manual_seed(0)
    for number in range(products - len(CATEGORIES)):
        target = models / f"product-{number:03d}"
        if target.is_dir():
            continue
        shutil.copytree(models / CATEGORIES[number % len(CATEGORIES)], target)
        for file in (target / "adapters.safetensors", target / "unet" / "diffusion_pytorch_model.safetensors"):
            if file.is_file():
                changed = {
                    name: t + 1e-4 * torch.randn(t.shape, generator=random) for name, t in load_file(file).items()
                }
                save_file(changed, file)
        facts = json.loads((target / "dhdiff.json").read_text()) | {"category": target.name}
        del facts["split_digest"]  # of a product that the split does not have
        facts["weights_sha256"] = weights_hash(target)
        (target / "files.json").unlink()
        (target / "dhdiff.json").unlink()
        told = {name: one for name, one in promises_below(target).items() if not name.endswith(".md")}
        (target / "files.json").write_text(json.dumps(told))
        (target / "dhdiff.json").write_text(json.dumps(facts))


def disk(models):
    """MB of all products, and of one with its weights alone beside it."""
    sizes = {file: file.stat().st_size for file in models.rglob("*") if file.is_file()}
    one = {file: size for file, size in sizes.items() if file.relative_to(models).parts[0] == CATEGORIES[0]}
    weights = sum(size for file, size in one.items() if file.suffix == ".safetensors")
    return {"disk_mb": round(sum(sizes.values()) / MB, 1), "one_mb": round(sum(one.values()) / MB, 3),
            "one_weights_mb": round(weights / MB, 3)}  # fmt: skip


def memory(config):
    """Rows of this process, which holds more and more products."""
    core, rows = SamplerCore(config), []
    names = sorted(core.catalogue.facts)
    for count in HELD:
        for name in names[:count]:
            core.held(name)(defect="crack", seed=0, num_inference_steps=1, background="free", output_type="pt")
        used = psutil.Process().memory_full_info()
        rows.append({"held": count, "rss_mb": round(used.rss / MB, 1), "uss_mb": round(used.uss / MB, 1)})
    grown = (rows[-1]["uss_mb"] - rows[0]["uss_mb"]) / (HELD[-1] - HELD[0])
    return {"rows": rows, "uss_mb_per_product": round(grown, 3)}


if __name__ == "__main__":
    main()
