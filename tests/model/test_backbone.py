import pytest
import torch
from diffusers import UNet2DConditionModel

from dhdiff_ray.model.backbone import load_backbone
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import decode, encode, latent_shape
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.model.unet import DHDiffUNet

PLACED = {"dda_encoder": (0, 1), "dda_decoder": (0,)}


@pytest.mark.parametrize("encoder", ["shared", "copy"])
@pytest.mark.parametrize("ssm", [(), (0, 1)])
def test_on_a_pretrained_backbone_the_network_starts_as_the_backbone_on_each_domain(stable_diffusion, encoder, ssm):
    plain = load_backbone(str(stable_diffusion)).unet.eval()
    unet = DHDiffUNet.from_backbone(
        plain, **PLACED, ssm_encoder=ssm, ssm_decoder=(), eta_start="identity", reference_encoder=encoder
    ).eval()
    image, annotation, reference = torch.randn(3, 2, 4, 8, 8)
    text, t = torch.randn(2, 5, 16), torch.tensor([10, 700])
    with torch.no_grad():
        references = unet.encode_reference(reference, t, text)
        both = split(unet(join(image, annotation), t, text, references=references))
        for domain, got in zip((image, annotation), both, strict=True):
            torch.testing.assert_close(got, plain(domain, t, text).sample, atol=1e-5, rtol=1e-4)


def test_a_copied_encoder_learns_apart_from_the_shared_one(backbone_config):
    shared, copy = (DHDiffUNet(backbone_config, **PLACED, ssm_encoder=(), ssm_decoder=(), reference_encoder=kind)
                    for kind in ("shared", "copy"))  # fmt: skip
    assert sum(p.numel() for p in copy.parameters()) > 1.3 * sum(p.numel() for p in shared.parameters())
    reference, text, t = torch.randn(1, 12, 8, 8), torch.randn(1, 5, 16), torch.tensor([5])
    sum(f.sum() for f in copy.encode_reference(reference, t, text).values()).backward()
    assert copy.backbone.conv_in.weight.grad is None
    assert copy.reference_copy.conv_in.weight.grad is not None


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(backbone_config):
    image, annotation, reference = torch.randn(3, 2, 12, 8, 8)
    text, t, control = torch.randn(2, 5, 16), torch.tensor([10, 700]), torch.rand(2, 1, 16, 16)
    words = torch.tensor([[0.0, 1, 1, 0, 0]] * 2)

    def gradients(checkpointed):
        torch.manual_seed(0)
        unet = DHDiffUNet(backbone_config, **PLACED, ssm_encoder=(0, 1), ssm_decoder=(0,))
        for parameter in unet.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        if checkpointed:
            unet.enable_gradient_checkpointing()
        references = unet.encode_reference(reference, t, text)
        out = unet(join(image, annotation), t, text, references=references, control_mask=control, defect_tokens=words)
        loss = out.square().mean()
        loss.backward()
        return loss, {n: p.grad for n, p in unet.named_parameters()}

    (plain, wanted), (again, got) = gradients(False), gradients(True)
    assert torch.equal(plain, again)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("missing", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_of_a_backbone_is_named_with_what_is_needed(stable_diffusion, tmp_path, missing):
    for part in stable_diffusion.iterdir():
        if part.name != missing:
            (tmp_path / part.name).symlink_to(part)
    with pytest.raises(ValueError, match=f"no Stable Diffusion {missing} in .*model.backbone"):
        load_backbone(str(tmp_path))


def test_parts_that_do_not_fit_together_are_refused(stable_diffusion, tmp_path):
    for part in stable_diffusion.iterdir():
        if part.name != "unet":
            (tmp_path / part.name).symlink_to(part)
    config = dict(UNet2DConditionModel.load_config(stable_diffusion / "unet")) | {"cross_attention_dim": 24}
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match=r"16 wide .* 24"):
        load_backbone(str(tmp_path))


def test_stable_diffusions_autoencoder_gives_each_image_one_scaled_latent(stable_diffusion):
    vae = load_backbone(str(stable_diffusion)).vae
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    z = encode(vae, images)
    assert latent_shape(vae) == (4, 2)
    assert z.shape == (2, 4, 8, 8)
    assert torch.equal(z, encode(vae, images))
    torch.testing.assert_close(z, vae.encode(images).latent_dist.mean * vae.config.scaling_factor)
    assert decode(vae, z).shape == images.shape


def test_taef2_names_the_file_it_misses_and_refuses_another_network(tmp_path):
    with pytest.raises(ValueError, match=r"no taef2_encoder.pth .*model.autoencoder_weights"):
        TinyAutoencoder.from_files(tmp_path)
    torch.save({"0.weight": torch.zeros(2)}, tmp_path / "taef2_encoder.pth")
    with pytest.raises(ValueError, match="is not TAEF2's"):
        TinyAutoencoder.from_files(tmp_path)


def test_taef2_latents_are_whitened_by_the_images_it_was_fitted_to_and_decode_as_before():
    torch.manual_seed(0)
    plain = TinyAutoencoder()
    fitted = TinyAutoencoder(whitened=True)
    fitted.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(6, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(fitted.encode(x), plain.encode(x)), "before it is fitted nothing changes"
        fitted.fit(x)
        z = fitted.encode(x)
        within = (z - z.mean((2, 3), keepdim=True)).transpose(0, 1).flatten(1)
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(32), atol=1e-3, rtol=0)
        variances = torch.linalg.eigvalsh(torch.cov(within))
        assert variances.max() < 1.01, "and less than 1 only where the images hardly differ"
        assert variances.median() > 0.99
        torch.testing.assert_close(fitted.decode(z), plain.decode(plain.encode(x)), atol=1e-3, rtol=1e-3)


def test_taef2_has_the_published_structure_and_survives_saving(tmp_path):
    torch.manual_seed(0)
    vae = TinyAutoencoder(whitened=True).eval().fit(torch.rand(3, 3, 64, 64) * 2 - 1)
    assert sum(p.numel() for p in vae.encoder.parameters()) * 2 == pytest.approx(2_704_692, rel=0.02)  # fp16 bytes
    vae.save_pretrained(tmp_path)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        z = vae.encode(x)
        assert torch.equal(TinyAutoencoder.from_pretrained(tmp_path).encode(x), z)
        assert z.shape == (1, 32, 8, 8)
        assert vae.decode(z).shape == x.shape
