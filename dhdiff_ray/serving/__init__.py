"""The endpoint: FastAPI around a sampler; knows nothing of Ray."""
