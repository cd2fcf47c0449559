import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from dhdiff_ray.model.latents import HaarTransform
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.text import small_text_encoder, word_tokenizer
from dhdiff_ray.model.unet import DHDiffUNet

WORDS = ["a", "photo", "of", "a", "bottle", "with", "broken", "large", "crack", "without", "defect"]


def stir(module, scale=0.1):
    """Weights that are zero at the start become ordinary ones, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def pipeline(backbone_config):
    """A whole pipeline at tiny size with stirred weights: 16 x 16 pixels, Haar latents."""
    return pipeline_of(backbone_config, ssm_encoder=(0, 1), ssm_decoder=(0,))


@pytest.fixture
def pipeline_apart(backbone_config):
    """The same, whose domains meet nowhere: DDA alone."""
    return pipeline_of(backbone_config, ssm_encoder=(), ssm_decoder=(), merge="none")


def pipeline_of(backbone_config, **switches):
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS, length=9)
    unet = stir(DHDiffUNet(backbone_config, dda_encoder=(0, 1), dda_decoder=(0,), **switches))
    return DHDiffPipeline(
        unet=unet.eval(),
        vae=HaarTransform(1),
        text_encoder=small_text_encoder(tokenizer, width=16, layers=1).eval(),
        tokenizer=tokenizer,
        scheduler=DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", timestep_spacing="trailing"),
        defaults={"prompt": "a photo of a bottle with {defect}", "size": 16, "grid": 4, "num_inference_steps": 3},
    )
