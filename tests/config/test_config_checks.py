import pytest

from dhdiff_ray.config import Config
from dhdiff_ray.config.checks import idle_switches
from dhdiff_ray.config.load import ConfigError, load_config

FROM_NOISE = ("model.backbone=''", "synthesize.start=noise", "synthesize.strength=1.0", "synthesize.placement=free")


def told(*sets):
    config = load_config(preset="tiny", sets=(*FROM_NOISE, *sets)).config
    return idle_switches(config, [s.split("=")[0] for s in sets])


@pytest.mark.parametrize(
    ("sets", "needs"),
    [
        (("model.ssm=false", "train.control_dropout=0.2"), "semantic score maps"),
        (("model.ssm=false", "train.fine_control=0.5"), "semantic score maps"),
        (("model.dda=false", "train.reference_noise=same"), "domain-decoupled attention"),
        (("train.reference=none", "model.reference_encoder=copy"), "train.reference other than none"),
        (("synthesize.min_iou=0.5", "synthesize.redraws=0"), "synthesize.redraws above 0"),
        (("synthesize.strength=0.5",), "synthesize.start = base or reference"),
        (("synthesize.placement=own",), "synthesize.start = reference"),
        (("synthesize.start=reference",), "synthesize.strength = [0.15, 0.6]"),
        (("synthesize.background=free", "train.clean_background=0", "synthesize.fade=true"), "keep or clean"),
        (("train.lora_rank=4",), "train.adapt = lora"),
        (("detect.real_share=0.8",), "real_synthetic"),
        (("train.adapt=lora",), "freezes random weights"),
        (("model.backbone=some/folder", "model.heads=4"), "the backbone fixes it"),
        (("model.autoencoder=taef2", "model.haar_levels=2"), "model.autoencoder = haar"),
        (("train.resize_seconds=5",), "train.workers = [least, most]"),
        (("train.reference=none", "model.zero_conv_gain=10"), "train.reference other than none"),
        (("model.backbone=some/folder", "model.dda_start=own"), "trained from scratch"),
        (("train.clean_background=1", "synthesize.background=keep"), "use synthesize.background = clean"),
        (("model.backbone=some/folder", "train.noise=texture"), "white noise alone"),
    ],
)
def test_a_switch_that_cannot_take_effect_is_told_with_what_it_needs(sets, needs):
    lines = told(*sets)
    assert len(lines) == 1
    assert sets[-1].split("=")[0] in lines[0]
    assert needs in lines[0]


def test_switches_that_work_are_not_told():
    assert told("train.control_dropout=0.2", "train.reference_noise=same", "model.eta_start=identity") == []
    assert told("synthesize.start=base", "synthesize.strength=0.5") == []


@pytest.mark.parametrize(
    ("workers", "least", "most", "elastic"), [("3", 3, 3, False), ("[1,4]", 1, 4, True), ("[2,2]", 2, 2, True)]
)
def test_workers_are_a_number_or_a_range_and_stay_so_in_a_run(workers, least, most, elastic):
    config = load_config(preset="tiny", sets=(f"train.workers={workers}",)).config
    again = Config.model_validate_json(config.model_dump_json())
    for train in (config.train, again.train):
        assert (train.least_workers, train.most_workers, train.is_elastic) == (least, most, elastic)


@pytest.mark.parametrize("workers", ["0", "[0,2]", "[2,1]", "[1]", "[1,2,3]", "true", "1.5", "many", "[1.5,2]"])
def test_what_is_no_number_of_workers_is_refused_in_one_line(workers):
    with pytest.raises(ConfigError, match=r"train\.workers = .*\[least, most\] with 1 <= least <= most") as caught:
        load_config(preset="tiny", sets=(f"train.workers={workers}",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", ["5", "[1,5]"])
def test_more_workers_than_a_batch_has_rows_are_refused_with_what_to_change(workers):
    with pytest.raises(ConfigError, match=r"train\.global_batch_size = 4 rows.*at most 4 workers"):
        load_config(preset="tiny", sets=("train.global_batch_size=4", f"train.workers={workers}"))


def test_textured_noise_is_refused_where_the_noise_is_predicted():
    with pytest.raises(ConfigError, match=r"set train\.prediction = v too"):
        load_config(preset="tiny", sets=("train.prediction=epsilon", "train.noise=texture"))


def test_neither_trackers_nor_how_often_a_run_looks_for_room_change_what_it_is():
    one = load_config(preset="tiny", sets=("train.workers=[1,2]",)).config
    two = load_config(
        preset="tiny", sets=("train.workers=[1,2]", "train.resize_seconds=7", 'train.trackers=["mlflow"]')
    ).config
    assert one.digest() == two.digest()


@pytest.mark.parametrize(("strength", "bounds"), [("0.5", (0.5, 0.5)), ("[0.15,0.6]", (0.15, 0.6)), ("0", (0, 0))])
def test_a_strength_is_a_share_or_a_range_and_stays_so_in_a_run(strength, bounds):
    sets = ("synthesize.start=reference", f"synthesize.strength={strength}")
    config = load_config(preset="tiny", sets=sets).config
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert config.synthesize.strengths == bounds


@pytest.mark.parametrize("strength", ["1.5", "[0.6,0.2]", "[0.5]", "true", "much", "-0.1"])
def test_what_is_no_strength_is_refused_in_one_line(strength):
    sets = ("synthesize.start=reference", f"synthesize.strength={strength}")
    with pytest.raises(ConfigError, match=r"synthesize\.strength = .*\[least, most\]") as caught:
        load_config(preset="tiny", sets=sets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength", ["0", "[0.2,0.5]"])
def test_a_range_of_strengths_is_for_a_start_from_a_reference(strength):
    with pytest.raises(ConfigError, match=r"set synthesize\.start = reference"):
        load_config(preset="tiny", sets=("synthesize.start=base", f"synthesize.strength={strength}"))


def test_a_strength_typed_as_a_whole_number_has_the_digest_of_the_same_float():
    one, same = (load_config(sets=(f"synthesize.strength={s}",)).config for s in ("1", "1.0"))
    assert one.digest() == same.digest() == Config().digest()
