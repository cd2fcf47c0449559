"""Warnings of switches that are set and have no effect, since an unnoticed one costs a run.

Only values that somebody set are checked; a default without effect surprises nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from dhdiff_ray.config import Config


def idle_switches(config: Config, given: Iterable[str], from_foundation: bool = False) -> list[str]:
    """One line per given key without effect: which, and what it would need.

    Args:
        config: the resolved configuration.
        given: dotted keys that a recipe, a flag or ``--set`` set; not those of a preset.
        from_foundation: whether ``model.backbone`` is a model of ours, which is compared with the switches when it is
            opened.
    """
    m, t, s = config.model, config.train, config.synthesize
    dda = m.dda and bool(m.dda_encoder or m.dda_decoder)
    ssm = m.ssm and bool(m.ssm_encoder or m.ssm_decoder)
    follows = dda and t.reference != "none"
    scratch = not m.backbone or from_foundation
    rules: dict[str, tuple[bool, str]] = {
        "data.dataset": (not config.sources, "a recipe without sources, each of which names its own"),
        "data.root": (
            not config.sources or not all(source.root for source in config.sources),
            "a recipe without sources, or a source without a root",
        ),
        "model.dda_encoder": (m.dda, "model.dda = true"),
        "model.dda_decoder": (m.dda, "model.dda = true"),
        "model.ssm_encoder": (m.ssm, "model.ssm = true"),
        "model.ssm_decoder": (m.ssm, "model.ssm = true"),
        "model.dda": (dda or not m.dda, "a placement in model.dda_encoder or model.dda_decoder"),
        "model.ssm": (ssm or not m.ssm, "a placement in model.ssm_encoder or model.ssm_decoder"),
        "model.eta_start": (ssm, "semantic score maps (model.ssm)"),
        "model.reference_encoder": (follows, "domain-decoupled attention and train.reference other than none"),
        "model.autoencoder": (scratch, "training from scratch: a backbone has an autoencoder of its own"),
        "model.autoencoder_weights": (scratch and m.autoencoder == "taef2", "model.autoencoder = taef2, no backbone"),
        "model.haar_levels": (scratch and m.autoencoder == "haar", "model.autoencoder = haar, no backbone"),
        **{f"model.{name}": (scratch, "training from scratch: the backbone fixes it")
           for name in ("channels", "attention_blocks", "layers_per_block", "heads", "text_width", "text_layers")},
        "train.reference": (dda, "domain-decoupled attention (model.dda): nothing else looks at a reference"),
        "train.reference_noise": (follows, "domain-decoupled attention and train.reference other than none"),
        "train.reference_dropout": (follows, "domain-decoupled attention and train.reference other than none"),
        "model.zero_conv_gain": (follows, "domain-decoupled attention and train.reference other than none"),
        "model.dda_start": (dda and scratch, "domain-decoupled attention, trained from scratch"),
        "train.noise": (scratch or t.noise == "white", "training from scratch: a backbone knows white noise alone"),
        "train.control_dropout": (ssm, "semantic score maps (model.ssm)"),
        "train.fine_control": (ssm, "semantic score maps (model.ssm)"),
        "train.noise_schedule": (scratch, "training from scratch: the backbone brings its schedule"),
        "train.trackers": (not config.ablation.rows, "a recipe without rows: a table's cells are not tracked"),
        "train.resize_seconds": (t.is_elastic, "train.workers = [least, most]"),
        "train.lora_rank": (t.adapt == "lora", "train.adapt = lora"),
        "synthesize.control": (ssm or not s.control, "semantic score maps (model.ssm)"),
        "synthesize.fade": (s.background != "free" or not s.fade, "synthesize.background = keep or clean"),
        "synthesize.min_iou": (s.redraws > 0 or not s.min_iou, "synthesize.redraws above 0"),
        "synthesize.strength": (s.start != "noise", "synthesize.start = base or reference"),
        "synthesize.placement": (s.start == "reference", "synthesize.start = reference"),
        "detect.real_share": (any(kind.startswith("real_") for kind in config.detect.baselines),
                              "a sum such as real_synthetic in detect.baselines"),
    }  # fmt: skip
    judged = {key: rules[key] for key in given if key in rules}
    lines = [f"{key} has no effect; it needs {need}" for key, (works, need) in judged.items() if not works]
    if t.clean_background == 1 and s.background != "clean" and "synthesize.background" in given:
        lines.append(
            f"synthesize.background = {s.background} draws on noise all around, which train.clean_background = 1 does "
            "not teach; use synthesize.background = clean, or less train.clean_background"
        )
    if "synthesize.start" in given and s.start == "reference" and s.strengths[0] == 1:
        lines.append(
            "synthesize.start = reference with synthesize.strength = 1 leaves little of what was placed; set it too, "
            "such as synthesize.strength = [0.15, 0.6]"
        )
    if "train.adapt" in given and t.adapt == "lora" and not m.backbone:
        lines.append("train.adapt = lora without model.backbone freezes random weights; use train.adapt = full")
    return lines
