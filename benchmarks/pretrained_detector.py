"""Do made photographs help a detector that has seen photographs before? A small head on frozen features.

    python -m benchmarks.pretrained_detector STORAGE RUN CATEGORY --weights FOLDER [--seeds 3] [--kind real ...]
                                             [--few-made FOLDER ...]

``detect`` trains the paper's U-Net from scratch, which on real photographs wants more steps than a CPU has. Here
SqueezeNet 1.0 (FOLDER as for ``score.features=small``) stays as it is, and what is trained is the head of
``detect.network = pretrained`` on four of its layers. Kinds of training images, beside the same normal ones, equal
steps for all:

    real         the real training half
    made         pairs of the run, as many of each defect
    real+made    both
    pasted       the real defects, cut out by their masks, at their places on normal images: no generator
    real+pasted  both
    cutpaste     rectangles of normal images
    few4         4 real images of each defect, others for each seed; any number will do
    few4+made    and pairs of a generator that was trained on those few alone, at most as many as there are real ones:
                 one folder of pairs (``test``, ``ground_truth``) per seed with ``--few-made``; else left out
    few4+pasted  and as many pasted images, made of those few

All are tested on the same held-out half. The run is only read; ``pretrained_detector.json`` keeps one entry per run,
kinds that were measured under the same conditions beside each other.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.detection import Quiet
from benchmarks.trained_run import opened
from dhdiff_ray.detector.baselines import cut_paste
from dhdiff_ray.detector.evaluate import figures
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.detector.loss import localisation_loss
from dhdiff_ray.detector.pretrained import Head
from dhdiff_ray.metrics.features.small import SmallPerceiver
from dhdiff_ray.records import GOOD
from dhdiff_ray.run.run import Run

RESULT = Path(__file__).parent / "results" / "pretrained_detector.json"
KINDS = ("real", "made", "real+made", "pasted", "real+pasted", "cutpaste", "few4", "few4+made", "few4+pasted")
FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap", "pro", "pixel_f1_max")
LAYERS = (0, 1, 2, 6)
"""Of SqueezeNet's taps: at a half, a quarter, an eighth and a sixteenth of the image's side."""
TOOK = "processor_seconds"
WIDTH, BATCH, RATE = 16, 12, 2e-3


def main():
    asked = arguments()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config, folder, split = opened(asked.storage, asked.run)
    own, start = split.category(asked.category), time.process_time()
    look = SmallPerceiver(asked.weights).layers
    features = lambda images: looked_at(look, images)  # noqa: E731
    detectors = Detectors(Run(config, folder), asked.category, Quiet())
    real, masks = detectors.real_pairs()
    names = [s.defect for s in own.train if not s.is_good]
    normal = detectors.normals()
    held, test, truth = detectors.test_half()
    shown = np.array([sample.defect for sample in held])
    normals, tested = features(normal), features(test)
    parts = {"real": lambda: (real, masks), "made": detectors.made_pairs}
    parts["pasted"] = lambda: pasted(real, masks, normal)
    parts["cutpaste"] = lambda: cut_paste(normal, len(real), 0)
    ready, rows = {}, []

    def part_of(kind, part, seed):
        if kind.startswith("few"):
            kept = few(names, int(kind.split("+")[0][3:]), seed)
            again = np.resize(kept, len(real))  # each of the few in turn
            made = {"made": lambda: of_folder(asked.few_made[seed], len(real))}
            made["pasted"] = lambda: pasted(real[again], masks[again], normal)
            images, targets = made.get(part, lambda: (real[kept], masks[kept]))()
            return features(images), targets
        if part not in ready:
            images, targets = parts[part]()
            ready[part] = features(images), targets
        return ready[part]

    for kind in asked.kind:
        found = []
        for seed in range(asked.seeds):
            several = [part_of(kind, part, seed) for part in kind.split("+")]
            layers = [torch.cat(same) for same in zip(*(one for one, _ in several), strict=True)]
            targets = np.concatenate([one for _, one in several])
            head = trained(layers, targets, normals, seed, asked.steps)
            maps = predicted(head, tested, truth.shape[1:])
            found.append(figures(maps, truth) | {"by_defect": by_defect(maps, truth, shown)})
            print(kind, seed, {n: round(found[-1][n], 4) for n in FIGURES}, found[-1]["by_defect"], flush=True)
        row = {"trained_on": kind, "images": len(targets)}
        for name in FIGURES:
            row[name] = [round(one[name], 4) for one in found]
        row["pixel_ap_by_defect"] = {name: [one["by_defect"][name] for one in found] for name in found[0]["by_defect"]}
        rows.append(row)
    keep(asked, config, own, rows, round(time.process_time() - start))


def by_defect(maps, masks, names):
    """Pixel AP on the images of each defect and all normal ones; of them all together large defects decide."""
    kept = {name: (names == name) | (names == GOOD) for name in sorted({*names} - {GOOD})}
    return {str(name): round(figures(maps[which], masks[which])["pixel_ap"], 4) for name, which in kept.items()}


def few(names, count, seed):
    """Positions of so many images of each defect, drawn from the seed."""
    draw, names = np.random.default_rng([seed, 7]), np.array(names)
    return np.sort(np.concatenate([draw.permutation(np.flatnonzero(names == n))[:count] for n in sorted(set(names))]))


def of_folder(folder, count):
    """Images and masks of a folder of pairs, the first of each defect, so many in all."""
    found = sorted(Path(folder).glob("test/*/*.png"), key=lambda path: (path.stem, path.parent.name))[:count]
    masks = [Path(folder) / "ground_truth" / path.parent.name / f"{path.stem}_mask.png" for path in found]
    read = lambda paths, mode: np.stack([np.array(Image.open(path).convert(mode)) for path in paths])  # noqa: E731
    return read(found, "RGB"), read(masks, "L")


def pasted(images, masks, normal):
    """Each image's defect, cut out by its mask, at its place on a normal image."""
    bases = normal[np.random.default_rng(3).integers(len(normal), size=len(images))]
    return np.where(masks[..., None] > 0, images, bases), masks


@torch.inference_mode()
def looked_at(look, images):
    """Feature maps, half precision, of uint8 images (n, h, w, 3)."""
    found = []
    for image in images:
        every = look(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
        layers = [every[at] for at in LAYERS]
        found.append([functional.avg_pool2d(layers[0], 2), *layers[1:]])
    return [torch.cat([one[at].half() for one in found]) for at in range(len(LAYERS))]


def trained(layers, masks, normals, seed, steps):
    """The head after so many steps; half of each batch are normal images."""
    torch.manual_seed(seed)
    head = Head(WIDTH, [layer.shape[1] for layer in layers])
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    targets = torch.from_numpy(masks > 0).float()[:, None]
    for _ in range(steps):
        bad, good = torch.randint(len(targets), (BATCH // 2,)), torch.randint(len(normals[0]), (BATCH // 2,))
        batch = [torch.cat([a[bad], b[good]]).float() for a, b in zip(layers, normals, strict=True)]
        wanted = torch.cat([targets[bad], torch.zeros_like(targets[bad])])
        loss = localisation_loss(head(batch, masks.shape[1:]), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


@torch.inference_mode()
def predicted(head, layers, size):
    """Probability maps (n, *size)."""
    rows = range(0, len(layers[0]), 16)
    maps = [torch.sigmoid(head([layer[at : at + 16].float() for layer in layers], size))[:, 0] for at in rows]
    return torch.cat(maps).numpy()


def keep(asked, config, split, rows, seconds):
    conditions = {
        "about": asked.about,
        "category": asked.category,
        "dataset": config.data.dataset,
        "resolution": config.data.resolution,
        "generator_steps": config.train.steps,
        "head_steps": asked.steps,
        "batch": BATCH,
        "seeds": asked.seeds,
        "seeds_vary": "the head's weights and batches, which few images, and what is made of those; the rest stays",
        "tested_on": f"{sum(s.is_good for s in split.test)} normal, {sum(not s.is_good for s in split.test)} defective",
        "split_digest": split.digest,
        TOOK: seconds,
    }
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    before = known.get(asked.run, {"rows": [], "conditions": conditions})
    same = all(before["conditions"][name] == value for name, value in conditions.items() if name != TOOK)
    kept = [row for row in before["rows"] if same and row["trained_on"] not in {one["trained_on"] for one in rows}]
    conditions[TOOK] += before["conditions"][TOOK] if kept else 0
    rows = sorted(kept + rows, key=lambda row: [*KINDS, row["trained_on"]].index(row["trained_on"]))
    known[asked.run] = {"rows": rows, "conditions": conditions}
    RESULT.write_text(json.dumps(known, indent=2) + "\n")
    for row in rows:
        spread = {n: f" ± {100 * np.std(row[n], ddof=1):.1f}" if asked.seeds > 1 else "" for n in FIGURES}
        shown = "  ".join(f"{n} {100 * np.mean(row[n]):.1f}{spread[n]}" for n in FIGURES)
        print(f"{row['trained_on']:12} {row['images']:4}  {shown}")
    print(f"written: {RESULT}")


def arguments():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("storage")
    parser.add_argument("run")
    parser.add_argument("category")
    parser.add_argument("--weights", required=True, help="folder of SqueezeNet 1.0's file")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--about", default="", help="a sentence on the run, kept with its figures")
    parser.add_argument("--few-made", nargs="*", default=[], help="pairs of generators trained on each seed's few")
    parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
    asked = parser.parse_args()
    asked.kind = asked.kind or [kind for kind in KINDS if kind != "few4+made" or asked.few_made]
    if any(kind.startswith("few") and "+made" in kind for kind in asked.kind) and len(asked.few_made) < asked.seeds:
        parser.error(
            f"few real images and made ones need --few-made with one folder of pairs for each of {asked.seeds} seeds"
        )
    return asked


if __name__ == "__main__":
    main()
