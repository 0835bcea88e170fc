"""Where Versatile Diffusion's original crashes or goes wrong in silence (SPEC_VD section 9).

What is tested elsewhere: files of a wrong layout (`test_files`), masks after an error and images that are hidden
altogether (`test_context_encoders`), mixtures for texts (`test_networks`), runs of 3 steps (`diffuser`).
"""

import pytest
import torch
from tiny import VERSATILE, build
from versatile_files import states

from codi_backend.conditioning.context import concatenate, mix
from codi_backend.models.noise_schedule import add_noise, alphas_cumprod
from codi_backend.pipeline import CoDi
from codi_backend.sampling.ddim_released import ReleasedDDIM

SMALL = {"image_size": 32, "steps": 2}


@pytest.fixture(scope="module")
def versatile():
    return build(VERSATILE)


@pytest.fixture(scope="module")
def text(versatile):
    return versatile.context("text", "two red stars")


@pytest.mark.parametrize(
    ("sampler", "fidelity"), [("ddim_released", 0.981), ("ddim_released", 0.999), ("dpmpp_2m", 0.991), ("euler", 0.999)]
)
def test_so_close_to_the_start_that_no_step_is_left(versatile, text, sampler, fidelity):
    start = {"image": torch.randn(1, 4, 8, 8)}
    options = {**SMALL, "steps": 50, "sampler": sampler, "start": start, "fidelity": fidelity}
    out = versatile.generate_latents(text, ["image"], **options)["image"]
    torch.testing.assert_close(out, start["image"])


def test_a_start_that_is_hardly_kept(versatile, text):
    """The original needs fewer steps than there are; ours may take all of them."""
    start, calls = {"image": torch.randn(1, 4, 8, 8)}, []
    options = {"start": start, "fidelity": 0.01, "progress": lambda *call: calls.append(call)}
    assert versatile.generate_latents(text, ["image"], **SMALL, **options)["image"].isfinite().all()
    assert calls == [(1, 2), (2, 2)]


def test_an_image_with_one_channel_to_start_from(versatile, text):
    with pytest.raises(ValueError, match="give three channels"):
        versatile.generate(text, ["image"], start=torch.rand(1, 1, 32, 32), fidelity=0.5, **SMALL)


def test_no_images_at_all(versatile, text):
    with pytest.raises(ValueError, match="There is no context: give at least one"):
        mix([(concatenate([]), 0.5), (text, 0.5)])


def test_ratios_that_sum_to_nothing(text):
    with pytest.raises(ValueError, match="ratios: all are 0"):
        mix([(text, 0.0), (text, 0.0)])


def test_a_network_alone(versatile, text):
    """With the transformers of one kind of context, and nothing else."""
    only = ["diffuser.image", "contexts.text", "diffuser.time"]
    new, _ = states(versatile)
    config = versatile.config.diffuser.only({"image"}, {"text"})
    alone = CoDi.from_state_dict(new, type(versatile.config)(diffuser=config))
    assert sorted(alone.parts()) == sorted(only)
    call = {"image": torch.randn(1, 4, 8, 8)}, torch.tensor([500]), [("text", text.tokens, 1.0)]
    with torch.inference_mode():
        assert torch.equal(alone.diffuser(*call)["image"], versatile.diffuser(*call)["image"])


def test_half_precision_keeps_the_schedule():
    """The original rounds it to half precision, too, which is 7% wrong at its end."""
    scheduler = ReleasedDDIM(50)
    clean, noise = torch.zeros(1, 4, 8, 8).half(), torch.ones(1, 4, 8, 8).half()
    alphas = alphas_cumprod()
    x, _ = scheduler.begin(clean, noise, 0.979)
    torch.testing.assert_close(x.float().mean(), (1 - alphas[21]).sqrt(), rtol=1e-3, atol=0)
    _, implied = scheduler.step(noise, scheduler.timesteps[-1], noise)
    expected = (1 - (1 - alphas[1]).sqrt()) / alphas[1].sqrt()
    torch.testing.assert_close(implied.float().mean(), expected, rtol=2e-3, atol=0)
    assert add_noise(clean, noise, torch.tensor([1]), alphas).mean() == pytest.approx(0.04128, rel=1e-2)


def test_inputs_stay_as_they_are(versatile, text):
    """The original's sampler writes into its caller's dictionaries."""
    start = {"image": torch.randn(1, 4, 8, 8)}
    before = start["image"].clone(), text.tokens.clone(), text.unconditional.clone()
    versatile.generate_latents(text, ["image"], start=start, fidelity=0.5, guidance=3.0, **SMALL)
    assert list(start) == ["image"]
    assert all(torch.equal(a, b) for a, b in zip(before, (start["image"], text.tokens, text.unconditional)))


def test_several_images_with_focus_at_once(versatile):
    """The original edits one image at a time, and gives another result each time."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    both = versatile.context("image", images, focus=0.3).tokens
    for i in range(2):
        alone = versatile.context("image", images[i : i + 1], focus=0.3).tokens
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-4, rtol=0)


def test_clip_is_in_memory_once(versatile):
    towers = {name: sum(p.numel() for p in part.parameters()) for name, part in versatile.prompt_encoders.items()}
    published = {key: value for key, value in versatile.to_reference_state_dict().items() if key.startswith("ctx.")}
    held = sum(value.numel() for key, value in published.items() if not key.endswith("position_ids"))
    assert held == 2 * sum(towers.values())
