import pytest
import torch

from dhdiff_ray.model.dda import DomainDecoupledAttention
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.entangled import EntangledAttention, SelfAttention
from dhdiff_ray.model.ssm import SemanticScoreMap
from dhdiff_ray.model.unet import DHDiffUNet

ALL = {"dda_encoder": (0, 1), "dda_decoder": (0,), "ssm_encoder": (0, 1), "ssm_decoder": (0,)}
NO_SSM = ALL | {"ssm_encoder": (), "ssm_decoder": ()}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    image, annotation, reference = torch.randn(3, 2, 12, 8, 8, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    return image, annotation, reference, text, torch.tensor([10, 700])


def _disturb(unet):
    """Weights that are zero at the start become ordinary ones, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_initial_network_equals_the_plain_backbone_on_each_domain(backbone_config, inputs):
    torch.manual_seed(0)
    unet = DHDiffUNet(backbone_config, **NO_SSM).eval()
    image, annotation, reference, text, t = inputs
    plain = DHDiffUNet(
        backbone_config, dda_encoder=(), dda_decoder=(), ssm_encoder=(), ssm_decoder=(), merge="none"
    ).eval()
    names = {k.replace(".attn1.image.project.", ".attn1.shared."): v for k, v in unet.state_dict().items()}
    plain.load_state_dict({k: names[k] for k in plain.state_dict()})
    joined = unet(join(image, annotation), t, text, references=unet.encode_reference(reference, t, text))
    for domain, output in zip((image, annotation), split(joined), strict=True):
        alone = split(plain(join(domain, domain), t, text))[0]
        torch.testing.assert_close(output, alone, atol=1e-5, rtol=1e-5)


def test_identity_eta_starts_as_plain_text_attention(backbone_config, inputs):
    torch.manual_seed(0)
    unet = DHDiffUNet(backbone_config, **ALL, eta_start="identity").eval()
    torch.manual_seed(0)
    plain = DHDiffUNet(backbone_config, **NO_SSM).eval()
    image, annotation, _, text, t = inputs
    both = join(image, annotation)
    torch.testing.assert_close(unet(both, t, text), plain(both, t, text), atol=1e-5, rtol=1e-5)


def test_without_merge_and_ssm_dda_keeps_the_domains_apart(backbone_config, inputs):
    unet = DHDiffUNet(backbone_config, **NO_SSM, merge="none").eval()
    _disturb(unet)
    image, annotation, _, text, t = inputs
    one = split(unet(join(image, annotation), t, text))
    other = split(unet(join(image, annotation + 1), t, text))
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


@pytest.mark.parametrize(
    "switches", [NO_SSM | {"merge": "cross"}, ALL | {"merge": "none"}, {**dict.fromkeys(ALL, ()), "merge": "none"}]
)
def test_merge_ssm_and_entangled_attention_each_connect_the_domains(backbone_config, inputs, switches):
    unet = DHDiffUNet(backbone_config, **switches, plain_attention="entangled").eval()
    _disturb(unet)
    image, annotation, _, text, t = inputs
    one = split(unet(join(image, annotation), t, text))[0]
    other = split(unet(join(image, annotation + 1), t, text))[0]
    assert not torch.allclose(one, other)


def test_a_reference_changes_the_image_but_not_the_annotation_once_zeta_is_trained(backbone_config, inputs):
    unet = DHDiffUNet(backbone_config, **NO_SSM, merge="none").eval()
    _disturb(unet)
    image, annotation, reference, text, t = inputs
    without = split(unet(join(image, annotation), t, text))
    given = unet.encode_reference(reference, t, text)
    with_it = split(unet(join(image, annotation), t, text, references=given))
    assert not torch.allclose(without[0], with_it[0])
    torch.testing.assert_close(without[1], with_it[1])


def test_the_decoder_takes_the_encoders_reference_of_its_own_resolution(backbone_config, inputs):
    unet = DHDiffUNet(backbone_config, **ALL).eval()
    _, _, reference, text, t = inputs
    recorded = unet.encode_reference(reference, t, text)
    layers = [m for m in unet.modules() if isinstance(m, DomainDecoupledAttention)]
    assert len(layers) == 4 and len(recorded) == 2
    assert {m.layer for m in layers} == {0, 1, 2, 3}


def test_placement_puts_each_module_where_the_table_says(backbone_config):
    unet = DHDiffUNet(
        backbone_config,
        dda_encoder=(1,),
        dda_decoder=(),
        ssm_encoder=(0,),
        ssm_decoder=(0,),
        plain_attention="entangled",
    )
    down = unet.backbone.down_blocks[1].attentions[0].transformer_blocks[0]
    mid = unet.backbone.mid_block.attentions[0].transformer_blocks[0]
    up = unet.backbone.up_blocks[0].attentions[0].transformer_blocks[0]
    assert type(down.attn1) is EntangledAttention
    assert type(mid.attn1) is DomainDecoupledAttention
    assert type(up.attn1) is EntangledAttention
    assert isinstance(down.attn2, SemanticScoreMap)
    assert not isinstance(mid.attn2, SemanticScoreMap)
    assert type(DHDiffUNet(backbone_config, (), (), (), ()).backbone.mid_block.attentions[0]
                .transformer_blocks[0].attn1) is SelfAttention  # fmt: skip


def test_a_block_that_is_not_there_is_refused_with_the_range(backbone_config):
    with pytest.raises(ValueError, match=r"dda_encoder = \[5\].*2 blocks.*0 to 1"):
        DHDiffUNet(backbone_config, dda_encoder=(5,), dda_decoder=(), ssm_encoder=(), ssm_decoder=())


def test_saved_and_loaded_network_is_bit_equal(backbone_config, inputs, tmp_path):
    unet = DHDiffUNet(backbone_config, **ALL, eta_start="identity").eval()
    unet.save_pretrained(tmp_path)
    again = DHDiffUNet.from_pretrained(tmp_path).eval()
    image, annotation, _, text, t = inputs
    assert torch.equal(unet(join(image, annotation), t, text), again(join(image, annotation), t, text))
