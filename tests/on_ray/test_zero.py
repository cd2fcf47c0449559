"""DeepSpeed's stages in a process of their own: it takes over the process group."""

import json
import os
import subprocess
import sys

import pytest

from dhdiff_ray.config_layers import load_config
from dhdiff_ray.on_ray.train_worker import refuse_what_cannot_be_averaged

PROGRAM = """
import json, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.on_ray.train_worker import deepspeed_engine, whole_weights
from dhdiff_ray.training.build import build, build_source
from dhdiff_ray.training.loop import fit

config = Config.model_validate_json(sys.argv[1])
data = read_many(open_dataset("procedural").scan(Path(config.data.root), ("capsule",)), 32, False, print)
told = {}
for stage, checkpointed in ((0, False), (1, True), (2, False), (3, True)):
    train = config.train.model_copy(update={"zero_stage": stage, "gradient_checkpointing": checkpointed})
    config = config.model_copy(update={"train": train})
    parts = build(config, data[0], data[1])
    engine = deepspeed_engine(parts.objective, config, 1)
    losses = []
    source = build_source(parts, config, *data)
    fit(engine, source, train, average=None, on_step=lambda done, log: losses.append(log["loss"]))
    with whole_weights(parts.objective, stage):
        total = sum(float(p.abs().sum()) for p in parts.objective.parameters())
    told[stage] = [*losses, total]
print("RESULT " + json.dumps(told))
"""


def test_every_zero_stage_with_or_without_gradient_checkpointing_gives_the_same_losses_and_weights(configure):
    config = configure("zero", "train.steps=2", "train.ema_decay=0")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    words = [sys.executable, "-c", PROGRAM, config.model_dump_json()]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **place}, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.split("RESULT ")[1].splitlines()[0])
    assert len(told) == 4
    for stage in "123":
        assert told[stage] == pytest.approx(told["0"], rel=1e-5), f"stage {stage}"


def test_stage_3_with_an_average_is_refused_with_what_to_set():
    config = load_config(preset="tiny", sets=("train.zero_stage=3",)).config
    with pytest.raises(ValueError, match=r"set train\.ema_decay=0"):
        refuse_what_cannot_be_averaged(config)
