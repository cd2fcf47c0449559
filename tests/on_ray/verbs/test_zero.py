"""DeepSpeed's stages in a process of their own: it takes over the process group."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.on_ray.verbs.checkpoints import AVERAGE, TAG, Stored, restore
from dhdiff_ray.on_ray.verbs.train_worker import refuse_what_cannot_be_averaged
from dhdiff_ray.training.build import build
from dhdiff_ray.training.loop import PlainEngine, new_average

PROGRAM = """
import json, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.on_ray.verbs.train_worker import deepspeed_engine, whole_weights
from dhdiff_ray.training.build import build, build_source, fit_look
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
    fit_look(parts, source)
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


def test_a_checkpoint_of_another_network_is_refused_in_words(configure, tmp_path):
    config = configure("other")
    data = read_many(open_dataset("procedural").scan(Path(config.data.root), ("mesh",)), 32, False, print)
    deeper = config.model_copy(update={"model": config.model.model_copy(update={"layers_per_block": 2})})
    written, now = (build(c, data[0], data[1]).objective for c in (config, deeper))
    torch.save(new_average(written, config.train).state_dict(), tmp_path / AVERAGE)
    stored = Stored(tmp_path, tmp_path, TAG)
    with pytest.raises(RuntimeError, match=r"is of another network .* train under another --run"):
        restore(PlainEngine(now, config.train), new_average(now, config.train), stored)


ELASTIC = """
import json, os, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.on_ray.verbs.checkpoints import loadable, restore, write
from dhdiff_ray.on_ray.verbs.train_worker import deepspeed_engine, whole_weights
from dhdiff_ray.training.build import build, build_source, fit_look
from dhdiff_ray.training.loop import fit, new_average

config, place = Config.model_validate_json(sys.argv[1]), Path(sys.argv[2])
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
data = read_many(open_dataset("procedural").scan(Path(config.data.root), ("mesh",)), 32, False, print)
told = {}
for stage in json.loads(sys.argv[3]):
    decay = 0.9 if stage < 3 else 0.0
    train = config.train.model_copy(update={"zero_stage": stage, "ema_decay": decay})
    config = config.model_copy(update={"train": train})
    parts = build(config, data[0], data[1])
    folder = place / str(stage)
    start, average = 0, None
    if folder.exists():
        with loadable(folder, stage, world_size) as stored:
            engine = deepspeed_engine(parts.objective, config, world_size, stored)
            average = new_average(parts.objective, train) if rank == 0 else None
            start = restore(engine, average, stored)
    else:
        engine = deepspeed_engine(parts.objective, config, world_size)
        average = new_average(parts.objective, train) if rank == 0 else None
    source = build_source(parts, config, *data)
    fit_look(parts, source)
    log = fit(engine, source, train, average=average, start=start, rank=rank, world_size=world_size)
    if not start:
        torch.distributed.barrier()
        write(folder, engine, average, train.steps, rank, world_size)
    with whole_weights(parts.objective, stage):
        weights = torch.cat([p.detach().flatten() for p in parts.objective.parameters()]).double()
    kept = torch.cat([p.flatten() for p in average.shadow_params]).double() if average is not None else weights
    told[stage] = [start, log["loss"], *(float(f(x)) for x in (weights, kept) for f in (torch.sum, torch.norm))]
    torch.distributed.barrier()
if rank == 0:
    print("RESULT " + json.dumps(told))
"""


def trained_by(workers, config, place, stages, steps):
    """So many processes train to ``steps``, from the checkpoints below ``place`` if there are any."""
    train = config.train.model_copy(update={"steps": steps})
    content = config.model_copy(update={"train": train}).model_dump_json()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(workers)}
    words = [sys.executable, "-c", ELASTIC, content, str(place), json.dumps(stages)]
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [
        subprocess.Popen(words, env={**common, "RANK": str(r), "LOCAL_RANK": str(r)}, **outputs) for r in range(workers)
    ]
    told = [process.communicate(timeout=500) for process in ranks]
    for process, (_, errors) in zip(ranks, told, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return json.loads(told[0][0].split("RESULT ")[1].splitlines()[0])


@pytest.mark.ray
def test_checkpoints_of_two_workers_go_on_with_one_and_those_of_one_with_two_at_every_stage(configure, tmp_path):
    stages = [0, 2, 3]
    config = configure("elastic", "train.clean_background=0.5", "train.global_batch_size=3", "train.decay=none")
    whole = trained_by(1, config, tmp_path / "whole", stages, 6)
    for before, after in ((2, 1), (1, 2)):
        place = tmp_path / f"{before} then {after}"
        trained_by(before, config, place, stages, 3)
        told = trained_by(after, config, place, stages, 6)
        for stage in map(str, stages):
            assert told[stage][0] == 3, "it went on from the checkpoint"
            assert told[stage][1:] == pytest.approx(whole[stage][1:], rel=1e-5, abs=1e-5), f"stage {stage}"


def test_stage_3_with_an_average_is_refused_with_what_to_set():
    config = load_config(preset="tiny", sets=("train.zero_stage=3",)).config
    with pytest.raises(ValueError, match=r"set train\.ema_decay=0"):
        refuse_what_cannot_be_averaged(config)
