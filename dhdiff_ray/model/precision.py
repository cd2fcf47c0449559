"""Which precision is fast on which device."""

from __future__ import annotations

import torch


def knows_bf16() -> bool:
    """Whether bf16 is fast here: on a GPU, or on a processor with instructions for it (x86 or ARM)."""
    able = torch.cpu.get_capabilities()
    return torch.cuda.is_available() or any(on and "bf16" in name for name, on in able.items())
