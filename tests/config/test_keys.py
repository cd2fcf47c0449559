"""The names of the knobs: recipes, lines typed and runs on disk hold them, so none may vanish unseen."""

from dhdiff_ray.config import Config
from dhdiff_ray.config.base import Rank
from dhdiff_ray.config.load import ranks

KEYS = """
ablation.rows ablation.seeds ablation.table data.categories data.dataset data.grid data.images data.manifest
data.masks data.resolution data.root data.several_defects data.shots data.skip_bad data.split
data.train_fraction detect.augment detect.baselines detect.batch_size detect.channels detect.decay detect.judge_every
detect.learning_rate detect.loss detect.mask_rule detect.network detect.normal_fraction detect.pairs detect.real_share
detect.seeds detect.select
detect.steps model.attention_blocks model.autoencoder model.autoencoder_weights model.backbone model.channels
model.dda model.dda_decoder model.dda_encoder model.dda_start model.eta_start model.haar_levels model.heads
model.layers_per_block model.merge model.plain_attention model.reference_encoder model.ssm model.ssm_decoder
model.ssm_encoder model.text_layers model.text_width model.zero_conv_gain run.name run.seed run.storage
score.alignment score.backbone score.backbone_file score.cluster_size score.download score.features
score.inception_file score.metrics score.profile score.seeds score.splits score.weights_dir score.workers
serve.batch_wait_ms serve.body_seconds serve.deadline_seconds serve.gpus_per_replica serve.header_seconds serve.host
serve.in_flight
serve.max_batch_size serve.max_body_mb serve.max_n serve.max_replicas serve.max_side serve.max_steps
serve.models_held serve.port serve.preview_share serve.queue serve.replicas serve.requests_per_minute
serve.steps_per_minute serve.surge_percent serve.warm sources synthesize.background synthesize.compile
synthesize.control synthesize.cpus_per_worker synthesize.fade synthesize.gpus_per_worker synthesize.guidance
synthesize.layout synthesize.min_iou synthesize.pairs_per_defect synthesize.placement synthesize.precision
synthesize.redraws synthesize.shard_size synthesize.start synthesize.steps synthesize.strength synthesize.unit_seconds
synthesize.workers
train.adapt train.checkpoint_every
train.clean_background train.control_dropout train.cpus_per_worker train.decay train.defect_weight
train.ema_decay train.fine_control train.flips train.global_batch_size train.gpus_per_worker
train.gradient_checkpointing train.gradient_clip train.keep_checkpoints train.learning_rate train.lora_rank
train.max_failures train.noise train.noise_schedule train.normal_fraction train.precision train.prediction
train.reference train.reference_dropout train.reference_noise train.resize_seconds train.step_seconds train.steps
train.text_dropout train.trackers train.warmup_steps train.window train.workers train.zero_stage
"""


def test_the_keys_are_those_that_recipes_and_runs_hold():
    """If this fails: add a new key to KEYS; one renamed or removed stops recipes and runs of today from opening."""
    assert sorted(ranks()) == KEYS.split()


def test_a_rank_changes_neither_what_is_stored_nor_the_digest():
    assert set(ranks().values()) == set(Rank)
    stored = {f"{part}.{name}" for part, knobs in Config().model_dump().items() for name in knobs} | {"sources"}
    assert stored == set(KEYS.split())
    assert Config().digest() == "fc5dae07d77f32c5"


def test_newer_knobs_at_their_defaults_leave_the_digest_of_runs_on_disk_alone():
    asked = [Config.model_validate({"detect": {"seeds": seeds, "real_share": 0.5}}).digest() for seeds in (1, 2)]
    assert asked[0] == Config().digest() != asked[1]


def test_runs_without_sources_keep_their_digest_and_those_with_sources_differ_by_each_word_of_them():
    digests = {
        Config.model_validate({"sources": sources}).digest()
        for sources in ([], [{"dataset": "mpdd"}], [{"dataset": "mpdd", "weight": 2}], [{"dataset": "mpdd"}] * 2)
    }
    assert len(digests) == 4
    assert Config().digest() in digests
