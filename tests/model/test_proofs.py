"""Each equation against a direct computation from its definition, in double precision."""

import itertools

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from dhdiff_ray.model.dda import DomainDecoupledAttention
from dhdiff_ray.model.domains import Strands, join, split
from dhdiff_ray.model.entangled import EntangledAttention, SelfAttention
from dhdiff_ray.model.ssm import ScoreFusion, SemanticScoreMap, control_score_map, score_map
from dhdiff_ray.model.unet import DHDiffUNet

B, HEADS, D, H, W, T = 2, 2, 3, 3, 4, 5
N, C = H * W, HEADS * D
SD15 = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "layers_per_block": 2,
}


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attention(context=None):
    return Attention(C, cross_attention_dim=context, heads=HEADS, dim_head=D).double().eval()


def strands(**values):
    return Strands(aspect=H / W, **values)


def heads(x):
    return x.reshape(B, -1, HEADS, D).permute(0, 2, 1, 3)


def test_eq1_to_3_the_joint_attention_is_its_four_quadrants_normalised_together():
    layer = attention()
    x = torch.randn(2 * B, N, C)
    q, k, v = ([heads(f(half)) for half in split(x)] for f in (layer.to_q, layer.to_k, layer.to_v))
    scores = [[torch.exp(q[i] @ k[j].mT / D**0.5) for j in (0, 1)] for i in (0, 1)]  # I_I, I_A / A_I, A_A of Eq. 2
    for domain in (0, 1):
        total = scores[domain][0].sum(-1, keepdim=True) + scores[domain][1].sum(-1, keepdim=True)
        mixed = (scores[domain][0] @ v[0] + scores[domain][1] @ v[1]) / total  # Eq. 3
        expected = layer.to_out[0](mixed.permute(0, 2, 1, 3).reshape(B, N, C))
        got = split(EntangledAttention(layer, 0)(x, strands=strands()))[domain]
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


def test_eq5_no_gradient_flows_between_the_domains_of_a_dda_layer():
    layer = DomainDecoupledAttention(attention(), 0)
    torch.nn.init.normal_(layer.image.zero_conv.conv.weight)
    image, annotation = (torch.randn(B, N, C, requires_grad=True) for _ in range(2))
    out = layer(join(image, annotation), strands=strands(references={0: torch.randn(B, N, C)}))
    out_image, out_annotation = split(out)
    (to_annotation,) = torch.autograd.grad(out_image.square().sum(), annotation, retain_graph=True)
    (to_image,) = torch.autograd.grad(out_annotation.square().sum(), image)
    assert not to_annotation.any()
    assert not to_image.any()


@pytest.mark.parametrize("controlled", [False, True])
def test_eq6_and_7_equal_a_loop_over_pixels_and_tokens(controlled):
    layer = SemanticScoreMap(attention(context=4), 0)
    torch.nn.init.normal_(layer.fusion.eta.weight, std=0.1)
    torch.nn.init.normal_(layer.fusion.eta.bias, std=0.1)
    x, text = torch.randn(2 * B, N, C), torch.randn(B, T, 4)
    text = join(text, text)  # both domains have one text
    control, words = torch.rand(B, 1, H, W), torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 0, 1, 0]])
    given = {"control_mask": control, "defect_tokens": words} if controlled else {}
    got = layer(x, text, strands=strands(**given))
    maps = score_map(layer.shared, x, text)  # (2b, a, n, t)
    s_control = control_score_map(control, words, (H, W)) if controlled else None
    kernel, bias = layer.fusion.eta.weight, layer.fusion.eta.bias
    fused = torch.zeros(2, B, HEADS, N, T)
    for b, a, y, x_, t in itertools.product(range(B), range(HEADS), range(H), range(W), range(T)):
        layers = [maps[b, a], maps[B + b, a]] + ([s_control[b, 0]] if controlled else [])
        mean = sum(m[y * W + x_, t] for m in layers) / len(layers)
        for domain in (0, 1):
            value = bias[domain] + mean
            for c, m in enumerate(layers):
                for dy, dx in itertools.product((-1, 0, 1), repeat=2):
                    if 0 <= y + dy < H and 0 <= x_ + dx < W:
                        value = value + kernel[domain, c, dy + 1, dx + 1] * m[(y + dy) * W + x_ + dx, t]
            fused[domain, b, a, y * W + x_, t] = value
    v = layer.shared.to_v(text).reshape(2 * B, T, HEADS, D).permute(0, 2, 1, 3)
    out = (torch.cat([fused[0], fused[1]]) @ v).permute(0, 2, 1, 3).reshape(2 * B, N, C)
    torch.testing.assert_close(got, layer.shared.to_out[0](out), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("controlled", [False, True])
def test_rows_of_the_mean_of_the_maps_sum_to_one(controlled):
    layer = SemanticScoreMap(attention(context=4), 0)
    maps = score_map(layer.shared, torch.randn(2 * B, N, C), torch.randn(2 * B, T, 4))
    words = torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    s_control = control_score_map(torch.rand(B, 1, 8, 8), words, (H, W)) if controlled else None
    for fused in ScoreFusion("mean").double()(maps[:B], maps[B:], s_control, None, (H, W)):
        torch.testing.assert_close(fused.sum(-1), torch.ones(B, HEADS, N), atol=1e-12, rtol=1e-12)


def test_the_default_placement_lies_on_the_blocks_stable_diffusion_has():
    with torch.device("meta"):
        unet = DHDiffUNet(SD15)
        plain = UNet2DConditionModel.from_config(SD15)
    names = {n.rsplit(".attentions", 1)[0] for n, _ in plain.named_modules() if n.endswith(".attn1")}
    assert sorted(names) == ["down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1",
                             "up_blocks.2", "up_blocks.3"]  # fmt: skip

    def blocks(suffix, kind):
        found = ((n, m) for n, m in unet.backbone.named_modules() if n.endswith(suffix))
        return sorted({n.rsplit(".attentions", 1)[0] for n, m in found if type(m) is kind})

    both = ["down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.3"]
    assert blocks(".attn1", DomainDecoupledAttention) == both
    assert blocks(".attn2", SemanticScoreMap) == both
    assert blocks(".attn1", SelfAttention) == ["up_blocks.2"]


ALL, HALF, TWO = (0, 1, 2, 3), (0, 2), (0, 1)
TABLE_IX = [(ALL, (), ALL, ()), (TWO, (), TWO, ()), (TWO, HALF, TWO, HALF), (ALL, HALF, ALL, HALF)]


@pytest.mark.parametrize("row", TABLE_IX)
def test_every_row_of_table_ix_can_be_placed_on_stable_diffusion(row):
    with torch.device("meta"):
        unet = DHDiffUNet(SD15, *row)
    count = sum(isinstance(m, DomainDecoupledAttention) for m in unet.modules())
    per_block = {"encoder": (2, 2, 2, 1), "decoder": (3, 3, 3)}
    wanted = sum(per_block["encoder"][i] for i in row[0]) + sum(per_block["decoder"][i] for i in row[1])
    assert count == wanted
