"""Every knob: frozen pydantic models; each field's docstring gives its unit and, where it has one, the paper's value.

``config_layers.py`` loads them as preset <- recipe <- environment <- ``--set`` and tells where each value came from.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from dhdiff_ray.config_base import Frozen
from dhdiff_ray.config_serve import ServeConfig
from dhdiff_ray.config_train import TrainConfig


class RunConfig(Frozen):
    """Where results go."""

    name: str = ""
    """Name of the run: one folder under ``storage``."""
    storage: str = "runs"
    """Folder or URI (s3://, gs://) that holds runs; must be visible to every node of the cluster."""
    seed: int = 0
    """Seed of everything that draws random numbers: split, training, pairs."""


class DataConfig(Frozen):
    """Which real images, and how they are cut (sections III-B and IV-B)."""

    dataset: str = "mvtec"
    """Name of a dataset loader, or a path to a Python file that registers one."""
    root: str = ""
    """Folder of the dataset as downloaded; must be visible to every node of the cluster."""
    categories: tuple[str, ...] = ()
    """Categories to work on; empty means all that the dataset has."""
    resolution: int = Field(default=256, ge=16)
    """Side of the square working image in pixels; the paper uses 256."""
    grid: int = Field(default=5, ge=1)
    """K of the K x K raw mask; the paper uses 5."""
    train_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Share of each defect's anomalies that may be trained on, with ``split = fraction``; the paper uses half."""
    split: Literal["fraction", "half", "third", "full", "kshot", "given"] = "fraction"
    """Which anomalies train, of each defect: ``train_fraction``, n//2, n//3 (the peers), ``shots``, or as the data
    says. ``full`` trains on ``train_fraction`` and tests on all: it holds training images, as the paper's test set."""
    shots: int = Field(default=4, ge=1)
    """Anomalies per defect that may be trained on with ``split = kshot``."""
    several_defects: Literal["combined", "each"] = "combined"
    """An image with several defects is one sample of the defect ``combined``, or one sample of each."""
    manifest: str = ""
    """CSV or JSONL table below the root: what ``folder`` lists (default manifest.csv or manifest.jsonl), or which
    official split ``visa`` follows (default split_csv/1cls.csv)."""
    images: str = ""
    """``folder`` without a manifest: where images lie, such as ``{category}/{defect}/*.jpg``."""
    masks: str = ""
    """``folder`` without a manifest: where masks lie, such as ``{category}/masks/{defect}/{stem}.png``."""
    skip_bad: bool = False
    """Leave out unreadable images and anomalies without a mask (each is named) instead of stopping."""


class ModelConfig(Frozen):
    """The network (section III); what is fixed at construction."""

    backbone: str = ""
    """Folder or hub id of a Stable Diffusion 1.x whose weights to start from; empty trains from scratch."""
    autoencoder: Literal["haar", "taef2"] = "haar"
    """What stands for the backbone's autoencoder when training from scratch: a fixed transform, or TAEF2's weights."""
    autoencoder_weights: str = ""
    """Folder with TAEF2's two files."""
    haar_levels: int = Field(default=1, ge=0, le=3)
    """Levels of the fixed Haar transform that stands for the autoencoder in the ``tiny`` preset."""
    channels: tuple[int, ...] = (32, 48, 64)
    """Channels of the U-Net blocks, from fine to coarse."""
    attention_blocks: tuple[bool, ...] = (False, True, True)
    """Which of these blocks attend to text."""
    layers_per_block: int = Field(default=1, ge=1)
    """ResNet layers in each block."""
    heads: int = Field(default=2, ge=1)
    """Attention heads."""
    text_width: int = Field(default=64, ge=8)
    """Width of the text encoder trained from scratch."""
    text_layers: int = Field(default=1, ge=1)
    """Layers of the text encoder trained from scratch."""
    dda: bool = True
    """Domain-decoupled attention (Eq. 4-5) where the placement says so; false leaves it out everywhere (Table VIII)."""
    ssm: bool = True
    """Semantic score maps (Eq. 6-7) where the placement says so; false leaves them out everywhere (Table VIII)."""
    dda_encoder: tuple[int, ...] = (0, 1, 2)
    """Encoder blocks with attention (the mid block counts last) that get domain-decoupled attention; paper: all."""
    dda_decoder: tuple[int, ...] = (0,)
    """Decoder blocks with attention that get domain-decoupled attention; paper: every other."""
    ssm_encoder: tuple[int, ...] = (0, 1, 2)
    """Encoder blocks with attention whose text attention is a semantic score map; paper: all."""
    ssm_decoder: tuple[int, ...] = (0,)
    """Decoder blocks with attention whose text attention is a semantic score map; paper: every other."""
    plain_attention: Literal["entangled", "separate"] = "separate"
    """Self-attention of the blocks without DDA: tokens of both domains together (Eq. 1-3), or each alone."""
    merge: Literal["cross", "none"] = "cross"
    """The third stage: a zero-initialised position-wise convolution between the domains after each block."""
    eta_start: Literal["mean", "identity"] = "mean"
    """Where Eq. 7 starts: both domains with the mean map, or each with its own."""
    reference_encoder: Literal["shared", "copy"] = "shared"
    """tau of Eq. 4: the network's own encoder (Siamese), or a trainable copy of it."""
    zero_conv_gain: float = Field(default=1.0, gt=0)
    """Factor on zeta of Eq. 4: as so many times its learning rate, so that the reference is followed sooner."""
    dda_start: Literal["random", "own"] = "random"
    """Where Eq. 4's image attention starts: as drawn, or each position looking at itself, so that the reference is
    followed."""


class SynthesizeConfig(Frozen):
    """Drawing pairs."""

    pairs_per_defect: int = Field(default=1000, ge=1)
    """Pairs per defect; the paper makes 1000."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Denoising steps of DPM-Solver++."""
    guidance: float = Field(default=3.0, ge=0)
    """Classifier-free guidance scale; 1 or less switches it off."""
    start: Literal["noise", "base"] = "noise"
    """Start from pure noise, or from the noised base image and raw mask (the paper's figure)."""
    strength: float = Field(default=1.0, gt=0, le=1)
    """How far ``start = base`` is noised; 1 is pure noise."""
    background: Literal["free", "keep", "clean"] = "free"
    """``keep`` puts the re-noised base back outside the raw mask at each step, ``clean`` the base itself (ours)."""
    fade: bool = False
    """Where the base is kept: what is drawn beside a made mask passes into it towards the raw mask's edge (ours)."""
    control: bool = True
    """Give the raw mask to the network as the control map S^O (Eq. 7)."""
    min_iou: float = Field(default=0.0, ge=0, lt=1)
    """Draw a pair again whose mask agrees less than this with what a localiser trained on real pairs sees; 0: never."""
    redraws: int = Field(default=3, ge=0)
    """Most further tries of a pair whose mask is empty, or agrees less than ``min_iou``; 0 keeps what comes first."""
    shard_size: int = Field(default=8, ge=1)
    """Pairs made together in one batch; fixed, so that the number of workers cannot change a pixel."""
    workers: int = Field(default=0, ge=0)
    """Samplers; 0 means as many as the cluster has room for."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores one sampler may use."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the U-Net while it draws, in serving too; bf16 wants a GPU, or a processor that knows it."""
    compile: bool = False
    """Compile the U-Net (``torch.compile``, needs a C++ compiler) in each sampler: a minute, then faster batches."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs one sampler asks for."""


class ScoreConfig(Frozen):
    """Scoring the pairs."""

    features: Literal["standin", "small", "inception"] = "inception"
    """Networks: the published ones; ``small`` real ones, labelled; or random ones, labelled, that need no file."""
    metrics: tuple[Literal["is", "ic_lpips", "originality", "kid", "masks"], ...] = (
        "is",
        "ic_lpips",
        "originality",
        "kid",
        "masks",
    )
    """What to compute; leave out what the networks at hand cannot give."""
    profile: Literal["anomalydiffusion", "full", "cdc", "dfmgan", "seas"] = "anomalydiffusion"
    """Whose rule IC-LPIPS follows; see ``metrics/profiles.py``."""
    backbone: Literal["", "vgg", "alex", "squeeze"] = ""
    """Backbone of LPIPS; empty is the profile's own (VGG-16, for ``dfmgan`` AlexNet)."""
    weights_dir: str = ""
    """Folder with the networks' files; empty means PyTorch's hub cache."""
    backbone_file: str = ""
    """A file of one's own for the LPIPS backbone; its scores are named ``_own``."""
    inception_file: str = ""
    """A file of one's own for Inception; its scores are named ``_own``."""
    download: bool = False
    """Fetch published files that are not there from their publishers."""
    splits: int = Field(default=10, ge=1)
    """Splits of the Inception Score; torch-fidelity's default is 10."""
    cluster_size: int = Field(default=0, ge=0)
    """Most images of one IC-LPIPS cluster that are compared; 0 is the profile's own (AnomalyDiffusion: 50)."""
    seeds: int = Field(default=5, ge=1)
    """Seeded draws from large clusters that IC-LPIPS averages over, beginning at ``run.seed``."""
    alignment: bool = True
    """Compare each mask with what a localiser trained on real masks sees in its image."""
    workers: int = Field(default=0, ge=0)
    """Feature extractors; 0 means as many as the cluster has room for."""


class DetectConfig(Frozen):
    """The paper's check: a U-Net localiser (section IV-D)."""

    steps: int = Field(default=6000, ge=1)
    """Optimiser steps per detector."""
    batch_size: int = Field(default=16, ge=1)
    """Images per step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate."""
    network: Literal["small", "draem"] = "draem"
    """The peers' U-Net, DRAEM's discriminative network, or a smaller one for small images."""
    channels: int = Field(default=64, ge=4)
    """Channels of the localiser's first level; DRAEM's network has 64."""
    loss: Literal["focal", "dice"] = "focal"
    """The peers' focal loss, or cross-entropy plus Dice."""
    decay: Literal["steps", "cosine"] = "steps"
    """Learning rate: a fifth at 80 % and again at 90 % of the steps, as the peers; or along a cosine."""
    select: Literal["last", "heldout", "test"] = "last"
    """Which weights are kept: the last, those best on a tenth of the training pairs that is held out, or those best
    on the test set: the peers' way, optimistic, for comparison with their figures only."""
    judge_every: int = Field(default=500, ge=1)
    """Steps between looks at the held-out pairs or the test set."""
    mask_rule: Literal["nonzero", "peers"] = "nonzero"
    """Test pixels that count as defect: all not zero; or, as the peers, for AUROC and AP only whole ones."""
    normal_fraction: float = Field(default=0.5, ge=0, lt=1)
    """Share of a batch that is normal images; the peers use half."""
    baselines: tuple[Literal["real", "real_synthetic", "cutpaste", "draem", "normal"], ...] = ("real",)
    """Also trained, for scale: on as many real pairs, on both, on pasted rectangles, on pasted Perlin shapes; or a fit
    to normal images alone."""


class AblationRow(Frozen):
    """One row of a table: a name and what differs from the recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Short name; it ends up in the name of the row's runs."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys and their values, as with ``--set``."""
    paper: float | None = None
    """The paper's figure of this row (pixel AP in percent, on its own dataset)."""


class AblationConfig(Frozen):
    """A table of runs (section IV-E): each row trained, sampled and judged alike, once per seed."""

    rows: tuple[AblationRow, ...] = ()
    """Rows; empty means that the recipe is an ordinary run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each row is run with these values of ``run.seed``: training, pairs and detector."""
    table: str = ""
    """Which of the paper's tables this is, for the heading."""


class Config(Frozen):
    """Everything a run is determined by; stored as ``config.json`` in the run."""

    run: RunConfig = Field(default_factory=RunConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    synthesize: SynthesizeConfig = Field(default_factory=SynthesizeConfig)
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    detect: DetectConfig = Field(default_factory=DetectConfig)
    serve: ServeConfig = Field(default_factory=ServeConfig)
    ablation: AblationConfig = Field(default_factory=AblationConfig)

    def digest(self) -> str:
        """Hash of what determines a category's results: not where they lie, nor which are asked for or served."""
        left_out: Any = {"serve": True, "ablation": True, "run": {"storage", "name"}, "data": {"categories"}}
        left_out["train"] = {"trackers", "resize_seconds"}
        content = self.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
