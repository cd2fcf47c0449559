"""The network and its sampler; imports torch, diffusers, transformers and itself, so it can be exported alone."""
