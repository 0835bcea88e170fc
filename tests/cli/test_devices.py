"""A GPU gives what the CPU gives."""

import pytest
import torch

from codi_backend import CoDi

OUTPUTS = ("text", "image", "video", "audio")
PROMPT = "three red stars, slowly"


def made(device, dtype=torch.float32):
    codi = CoDi.load("mini").to(device, dtype)
    latents = codi.generate_latents(codi.prompt("text", [PROMPT]), OUTPUTS, steps=4)
    return {name: z.float().cpu() for name, z in latents.items()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that CUDA can use")
@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-4), (torch.float16, 0.05), (torch.bfloat16, 0.2)])
def test_cuda(monkeypatch, dtype, far):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected, latents = made("cpu"), made("cuda", dtype)
    for name, z in latents.items():
        assert (z - expected[name]).norm() < far * expected[name].norm(), name
