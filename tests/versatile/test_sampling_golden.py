"""The released sampler on the original's own runs, and how it begins close to an image (SPEC_VD section 5)."""

import json

import pytest
import torch
from sample_options import sample
from versatile_golden import GOLDEN, by_rule, read

from codi_backend.conditioning.context import Context, mix
from codi_backend.config import CoDiConfig
from codi_backend.models.noise_schedule import add_noise, alphas_cumprod
from codi_backend.sampling.ddim_released import ReleasedDDIM

RUNS = ["t2i", "t2i_scale1", "i2i_zero_uncond", "i2t", "i2i_from_x0_fidelity05"]


@pytest.fixture(scope="module")
def deep():
    meta, _ = read("ddim_deep_t2i")
    return by_rule(CoDiConfig.from_reference(meta)).diffuser


@pytest.mark.parametrize("name", RUNS)
def test_runs_end_where_the_original_did(deep, name):
    meta, case = read(f"ddim_deep_{name}")
    contexts = [
        (Context(c["type"], *(case[f"in/{which}_{i}_{c['type']}"] for which in ("cond", "uncond"))), c["ratio"] or 1)
        for i, c in enumerate(meta["contexts"])
    ]
    output, start, noise = meta["x_type"], {}, case["in/x_start"]
    if "in/x0" in case:
        noise, start = case["in/noise"], {"start": {meta["x_type"]: case["in/x0"]}, "start_strength": meta["fidelity"]}
    calls = []
    out = sample(
        deep,
        {output: noise},
        mix(contexts),
        steps=meta["steps"],
        guidance=meta["contexts"][0]["guidance"],
        sampler="ddim_released",
        progress=lambda done, total: calls.append((done, total)),
        **start,
    )[output]
    expected = case["out/x"]
    assert (out - expected).abs().max() < 1e-3 * expected.abs().max()
    assert len(calls) == meta.get("x0_forward_timesteps", meta["steps"])


def test_the_released_start_is_one_step_too_noisy():
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for row in json.loads((GOLDEN / "fidelity_start.json").read_text())["table"]:
        scheduler = ReleasedDDIM(50)
        x, left = scheduler.begin(clean, noise, row["fidelity"])
        assert left == row["denoise_steps"] and scheduler.timesteps[-left] == row["first_denoise_t"]
        level = torch.full((2,), row["noise_t"])
        torch.testing.assert_close(x, add_noise(clean, noise, level, alphas_cumprod()))


def test_the_start_of_the_golden_run():
    _, case = read("ddim_deep_i2i_from_x0_fidelity05")
    x, left = ReleasedDDIM(10).begin(case["in/x0"], case["in/noise"], 0.5)
    torch.testing.assert_close(x, case["in/x_start"])
    assert left == 5
