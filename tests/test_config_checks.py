import pytest

from dhdiff_ray.config_checks import idle_switches
from dhdiff_ray.config_layers import load_config


def told(*sets):
    config = load_config(preset="tiny", sets=sets).config
    return idle_switches(config, [s.split("=")[0] for s in sets])


@pytest.mark.parametrize(
    ("sets", "needs"),
    [
        (("model.ssm=false", "train.control_dropout=0.2"), "semantic score maps"),
        (("model.dda=false", "train.reference_noise=same"), "domain-decoupled attention"),
        (("train.reference=none", "model.reference_encoder=copy"), "train.reference other than none"),
        (("synthesize.strength=0.5",), "synthesize.start = base"),
        (("train.lora_rank=4",), "train.adapt = lora"),
        (("train.adapt=lora",), "freezes random weights"),
        (("model.backbone=some/folder", "model.heads=4"), "the backbone fixes it"),
        (("model.autoencoder=taef2", "model.haar_levels=2"), "model.autoencoder = haar"),
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
