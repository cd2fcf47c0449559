"""The endpoint's knobs: they change no pair, so no result depends on them."""

from __future__ import annotations

from pydantic import Field, model_validator

from dhdiff_ray.config.base import First, Frozen


class ServeConfig(Frozen):
    """The endpoint."""

    host: First[str] = "127.0.0.1"
    """Address to listen on; anything but loopback asks for a token."""
    port: First[int] = Field(default=8000, ge=0, le=65535)
    """Port; 0 picks a free one."""
    replicas: First[int] = Field(default=1, ge=0)
    """Samplers behind the endpoint; 0 needs ``max_replicas`` and starts one when somebody asks."""
    max_replicas: int = Field(default=0, ge=0)
    """Samplers under load, above ``replicas``; 0 keeps their number."""
    surge_percent: int = Field(default=0, ge=0, le=100)
    """Share of the samplers that a redeploy starts before it stops old ones, so that nobody waits. It waits until there
    is room for them. At 0 the old ones stop first, and requests wait while new ones start."""
    max_batch_size: int = Field(default=4, ge=1, le=256)
    """Pairs drawn in one pass; a pass is always filled up to it, so that other requests change no byte of a pair."""
    batch_wait_ms: float = Field(default=10.0, ge=0)
    """How long a pass that is not full waits for more requests, in milliseconds."""
    max_n: int = Field(default=16, ge=1)
    """Most pairs one request may ask for."""
    max_steps: int = Field(default=200, ge=1, le=1000)
    """Most denoising steps one request may ask for."""
    max_side: int = Field(default=4096, ge=16, le=16384)
    """Largest side of a picture that a client may send, in pixels."""
    max_body_mb: float = Field(default=64.0, gt=0)
    """Largest request in MiB."""
    queue: int = Field(default=64, ge=1)
    """Pairs that may wait at one sampler; more are refused with 503."""
    deadline_seconds: float = Field(default=120.0, gt=0)
    """Longest a request may take; a client may ask for less with the header ``X-Deadline-Seconds``."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Longest a client may take to send its request."""
    requests_per_minute: float = Field(default=0.0, ge=0)
    """Requests per minute of one key, unless the token file says otherwise; 0 does not limit."""
    steps_per_minute: float = Field(default=0.0, ge=0)
    """Denoising steps (pairs times steps) per minute of one key, or of all where there are no keys: what it may cost. A
    request for more than a minute's worth is answered once in a while; 0 does not limit."""
    in_flight: int = Field(default=64, ge=1)
    """Requests of one key, or from one address where there are no keys, that are answered at once; more get 429. Those
    that are still arriving do not count."""
    header_seconds: float = Field(default=10.0, gt=0)
    """Longest a client may take to send a request's headers before its connection is closed."""
    models_held: int = Field(default=3, ge=1)
    """Categories whose models one sampler keeps loaded; the one not used for longest is dropped first."""
    warm: bool = True
    """Load models and draw once before the first request."""
    preview_share: float = Field(default=0.1, ge=0, le=1)
    """Most time that previews may take, as a share of the pass: they are spaced accordingly; 0 sends none."""
    gpus_per_replica: float = Field(default=0, ge=0)
    """GPUs one sampler asks for."""

    @model_validator(mode="after")
    def _someone_answers(self) -> ServeConfig:
        if not self.replicas and not self.max_replicas:
            raise ValueError("replicas = 0 leaves nobody to answer; set serve.max_replicas too")
        return self
