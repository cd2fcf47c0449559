"""The equations, one by one, on real diffusers attention layers."""

import torch
from diffusers.models.attention_processor import Attention

from dhdiff_ray.model.dda import AnnotationSelfAttention, DomainDecoupledAttention, ImageCrossAttention
from dhdiff_ray.model.domains import DomainMerge, Strands, join, split
from dhdiff_ray.model.entangled import EntangledAttention, heads_of
from dhdiff_ray.model.reference import ZeroConv
from dhdiff_ray.model.ssm import ScoreFusion, SemanticScoreMap, control_score_map, score_map

B, N, C, T = 2, 16, 8, 5


def _attention(context=None):
    torch.manual_seed(0)
    return Attention(C, cross_attention_dim=context, heads=2, dim_head=4).eval()


def _strands(**values):
    return Strands(aspect=1.0, **values)


def _by_hand(layer, queries, context):
    def heads(x):
        return x.reshape(x.shape[0], -1, 2, 4).permute(0, 2, 1, 3)

    q, k, v = heads(layer.to_q(queries)), heads(layer.to_k(context)), heads(layer.to_v(context))
    scores = (q @ k.mT / 4**0.5).softmax(-1)
    return layer.to_out[0]((scores @ v).permute(0, 2, 1, 3).flatten(2)), scores


def test_eq3_entangled_output_mixes_the_values_of_both_domains():
    layer = _attention()
    x = torch.randn(2 * B, N, C)
    both = torch.cat(split(x), dim=1)
    expected, scores = _by_hand(layer, both, both)
    out = EntangledAttention(layer, 0)(x, strands=_strands())
    torch.testing.assert_close(torch.cat(split(out), dim=1), expected)
    assert scores[..., :N, N:].sum() > 0  # the quadrant I_A of Eq. 2: what leaks


def test_eq4_image_takes_keys_and_values_from_reference_plus_image():
    layer = ImageCrossAttention(_attention())
    torch.nn.init.normal_(layer.zero_conv.conv.weight)
    f_image, f_reference = torch.randn(2, B, N, C)
    context = layer.zero_conv(f_reference) + f_image
    torch.testing.assert_close(layer(f_image, f_reference), _by_hand(layer.project, f_image, context)[0])


def test_eq4_zero_conv_starts_as_plain_self_attention():
    layer = ImageCrossAttention(_attention())
    f_image, f_reference = torch.randn(2, B, N, C)
    torch.testing.assert_close(layer(f_image, f_reference), layer(f_image, None))


def test_attention_may_start_with_each_position_looking_at_itself():
    torch.manual_seed(0)
    f_image = torch.nn.functional.layer_norm(torch.randn(B, N, C), (C,))

    def itself(start):
        project = DomainDecoupledAttention(_attention(), 0, start=start).image.project
        q, k = heads_of(project, project.to_q(f_image)), heads_of(project, project.to_k(f_image))
        return (q @ k.transpose(-1, -2) * project.scale).softmax(-1).diagonal(dim1=-2, dim2=-1).mean()

    assert itself("own") > 2 * itself("random")
    annotation = DomainDecoupledAttention(_attention(), 0, start="own").annotation.project
    assert not torch.equal(annotation.to_q.weight, annotation.to_k.weight), "the image's attention alone"


def test_a_gain_on_zeta_makes_one_step_of_adam_go_that_much_further():
    f_reference = torch.randn(B, N, C)
    moved = []
    for gain in (1.0, 10.0):
        zeta = ZeroConv(C, gain)
        optimizer = torch.optim.Adam(zeta.parameters(), lr=1e-3)
        (zeta(f_reference) - 1).square().mean().backward()
        optimizer.step()
        moved.append(zeta(f_reference).detach())
    torch.testing.assert_close(moved[1], 10 * moved[0], rtol=1e-3, atol=1e-6)


def test_eq5_annotation_never_sees_image():
    layer = DomainDecoupledAttention(_attention(), 0)
    image, other, annotation = torch.randn(3, B, N, C)
    strands = _strands(references={0: torch.randn(B, N, C)})
    torch.nn.init.normal_(layer.image.zero_conv.conv.weight)
    one = split(layer(join(image, annotation), strands=strands))
    two = split(layer(join(other, annotation), strands=strands))
    assert torch.equal(one[1], two[1])
    assert torch.equal(one[1], AnnotationSelfAttention(layer.annotation.project)(annotation))


def test_image_output_does_not_change_when_annotation_does():
    layer = DomainDecoupledAttention(_attention(), 0)
    image, annotation, other = torch.randn(3, B, N, C)
    one, two = (split(layer(join(image, a), strands=_strands()))[0] for a in (annotation, other))
    assert torch.equal(one, two)


def test_eq6_rows_of_the_score_map_sum_to_one_and_match_the_formula():
    layer = _attention(context=6)
    features, text = torch.randn(B, N, C), torch.randn(B, T, 6)
    s = score_map(layer, features, text)
    assert s.shape == (B, 2, N, T)
    torch.testing.assert_close(s.sum(-1), torch.ones(B, 2, N))
    torch.testing.assert_close(s, _by_hand(layer, features, text)[1])


def test_eq7_zero_eta_gives_both_domains_the_mean_map():
    s_image, s_annotation = torch.rand(2, B, 2, N, T)
    fused = ScoreFusion("mean")(s_image, s_annotation, None, None, (4, 4))
    for f in fused:
        torch.testing.assert_close(f, (s_image + s_annotation) / 2)


def test_eq7_identity_eta_gives_each_domain_its_own_map():
    s_image, s_annotation = torch.rand(2, B, 2, N, T)
    fused = ScoreFusion("identity")(s_image, s_annotation, None, None, (4, 4))
    torch.testing.assert_close(fused[0], s_image)
    torch.testing.assert_close(fused[1], s_annotation)


def test_eq7_control_enters_the_mean_only_of_the_pairs_that_have_it():
    s_image, s_annotation = torch.rand(2, B, 2, N, T)
    s_control = torch.rand(B, 1, N, T)
    fused = ScoreFusion("mean")(s_image, s_annotation, s_control, torch.tensor([1.0, 0.0]), (4, 4))[0]
    torch.testing.assert_close(fused[0], (s_image + s_annotation + s_control)[0] / 3)
    torch.testing.assert_close(fused[1], (s_image + s_annotation)[1] / 2)


def test_eq7_eta_is_a_convolution_over_positions_with_the_domain_as_channel():
    fusion = ScoreFusion("mean")
    with torch.no_grad():
        fusion.eta.weight[0, 1, 1, 2] = 1.0  # the image's map takes the annotation's right neighbour
    s_image, s_annotation = torch.zeros(B, 2, N, T), torch.rand(B, 2, N, T)
    delta = fusion(s_image, s_annotation, None, None, (4, 4))[0] - s_annotation / 2
    shifted = s_annotation.unflatten(2, (4, 4)).roll(-1, dims=3)
    shifted[:, :, :, -1] = 0
    torch.testing.assert_close(delta, shifted.flatten(2, 3))


def test_control_map_puts_the_mask_on_the_defects_words_and_the_rest_elsewhere():
    mask = torch.zeros(B, 1, 8, 8)
    mask[:, :, :4] = 1
    words = torch.zeros(B, T)
    words[0, 2:4] = 1  # the second prompt names no defect
    s = control_score_map(mask, words, (4, 4))
    torch.testing.assert_close(s.sum(-1), torch.ones(B, 1, N))
    torch.testing.assert_close(s[0, 0, 0], torch.tensor([0, 0, 0.5, 0.5, 0]))
    torch.testing.assert_close(s[0, 0, -1], torch.tensor([1, 1, 0, 0, 1]) / 3)
    torch.testing.assert_close(s[1, 0, 0], torch.full((T,), 1 / T))


def test_ssm_output_is_the_fused_map_times_the_texts_values():
    layer = SemanticScoreMap(_attention(context=6), 0)
    x, text = torch.randn(2 * B, N, C), torch.randn(B, T, 6)
    text = join(text, text)
    s = score_map(layer.shared, x, text)
    mean = (s[:B] + s[B:]) / 2
    v = layer.shared.to_v(text).reshape(2 * B, T, 2, 4).permute(0, 2, 1, 3)
    expected = layer.shared.to_out[0]((torch.cat([mean, mean]) @ v).permute(0, 2, 1, 3).flatten(2))
    torch.testing.assert_close(layer(x, text, strands=_strands()), expected)


def test_merge_starts_without_effect_and_then_carries_each_domain_to_the_other():
    merge = DomainMerge(C)
    x = torch.randn(2 * B, C, 4, 4)
    assert torch.equal(merge(x), x)
    torch.nn.init.eye_(merge.to_annotation.weight[:, :, 0, 0].data)
    with torch.no_grad():
        merge.to_annotation.weight[:, :, 0, 0] = torch.eye(C)
    image, annotation = split(merge(x))
    torch.testing.assert_close(image, split(x)[0])
    torch.testing.assert_close(annotation, split(x)[0] + split(x)[1])
