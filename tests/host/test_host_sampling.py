"""The stock KSampler on CoDi's MODEL."""

import pytest
import torch
from host.tiny_checkpoint import tiny_config, tiny_parts


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ddim", "uni_pc", "dpmpp_sde", "lcm"])
def test_stock_samplers_denoise_both_streams(sample, empty, sampler):
    image, audio = sample(empty(batch_size=2), sampler=sampler)
    assert image.shape == (2, 4, 8, 8) and audio.shape == (2, 8, 32, 8)
    assert image.isfinite().all() and audio.isfinite().all()


@pytest.mark.parametrize(("streams", "shape"), [({"audio": False}, (1, 4, 8, 8)), ({"image": False}, (1, 8, 32, 8))])
def test_one_stream_alone_is_a_plain_latent(sample, empty, streams, shape):
    latent = empty(**streams)
    assert torch.is_tensor(latent["samples"])
    (result,) = sample(latent)
    assert result.shape == shape and result.std() > 0.1


def test_same_seed_same_bits_and_another_seed_not(sample, empty):
    first = sample(empty(), seed=1)
    assert equal(first, sample(empty(), seed=1))
    other = sample(empty(), seed=2)
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def test_alignment_decides_whether_streams_hear_each_other(run_node, sample, empty, tiny):
    def aligned(mode, strength=1.0):
        return sample(empty(), run_node("CoDiAlignment", model=tiny[0], mode=mode, strength=strength)[0])

    default, none = sample(empty()), aligned("none")
    assert equal(default, aligned("paper")) and equal(none, aligned("paper", 0.0))
    assert all(not torch.allclose(a, b) for a, b in zip(default, none, strict=True))
    assert all(not torch.allclose(a, b) for a, b in zip(aligned("released"), none, strict=True))
    # Its own noise comes first, so an image that hears nothing is the same with and without a sound beside it.
    torch.testing.assert_close(none[0], sample(empty(audio=False))[0])


def test_a_held_stream_stays_and_the_other_hears_it(host, sample, empty):
    nested = host.module("nodes.streams").NestedTensor
    generator = torch.Generator().manual_seed(5)
    image, audio = empty()["samples"].unbind()

    def held(picture):
        mask = nested([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 32, 8)])
        return sample({"samples": nested([picture, audio]), "noise_mask": mask}, steps=8)

    one, other = (torch.randn(image.shape, generator=generator) for _ in range(2))
    kept, sound = held(one)
    torch.testing.assert_close(kept, one, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(sound, held(other)[1])


def test_wrappers_around_the_network_are_called(sample, empty, tiny):
    from comfy.patcher_extension import WrappersMP

    calls = []

    def count(executor, x, *arguments, **named):
        calls.append(len(x))
        return executor(x, *arguments, **named)

    model = tiny[0].clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", count)
    assert equal(sample(empty(), model, steps=3), sample(empty(), steps=3)) and calls == [2, 2, 2]


def test_custom_sampler_gives_what_ksampler_gives(run_node, sample, empty, prompts, tiny):
    (noise,) = run_node("RandomNoise", noise_seed=0)
    (guider,) = run_node("CFGGuider", model=tiny[0], positive=prompts[0], negative=prompts[1], cfg=7.5)
    (sampler,) = run_node("KSamplerSelect", sampler_name="euler")
    (sigmas,) = run_node("BasicScheduler", model=tiny[0], scheduler="normal", steps=4, denoise=1.0)
    output, denoised = run_node(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=empty()
    )
    assert equal(output["samples"].unbind(), sample(empty()))
    # The last step of euler lands on what it takes for the clean latent.
    for one, other in zip(output["samples"].unbind(), denoised["samples"].unbind(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_sampler_agrees_with_ddim_written_out(host, sample, empty, prompts, sampler):
    """DDIM in terms of the cumulative signal level, on the backend's own diffuser and torch's own layers."""
    backend, steps, guidance = host.module("codi_backend"), 10, 3.0
    config = tiny_config(backend)
    parts = tiny_parts(backend, config)
    diffuser = backend.diffuser.Diffuser(config.diffuser)
    for name, network in diffuser.networks.items():
        network.load_state_dict(parts[f"diffuser.{name}"])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    levels = (1 - betas).cumprod(0)
    timesteps = list(range(1, 1000, 1000 // steps))[::-1]
    positive, negative = (condition[0][0] for condition in prompts)

    generator = torch.manual_seed(0)
    shapes = {"image": (1, 4, 8, 8), "audio": (1, 8, 32, 8)}
    x = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    first = levels[timesteps[0]].item()
    x = {name: value * (1 - first) ** 0.5 for name, value in x.items()}
    with torch.inference_mode():
        for i, t in enumerate(timesteps):
            level = levels[t].item()
            following = levels[timesteps[i + 1]].item() if i + 1 < len(timesteps) else 1.0
            conditional = diffuser(x, torch.tensor([t]), positive)
            unconditional = diffuser(x, torch.tensor([t]), negative, alignment="none")
            for name in x:
                noise = unconditional[name] + guidance * (conditional[name] - unconditional[name])
                clean = (x[name] - (1 - level) ** 0.5 * noise) / level**0.5
                x[name] = following**0.5 * clean + (1 - following) ** 0.5 * noise

    image, audio = sample(empty(), steps=steps, cfg=guidance, sampler=sampler, scheduler="ddim_uniform")
    torch.testing.assert_close(image * config.image_autoencoder.scale_factor, x["image"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(audio * config.audio_autoencoder.scale_factor, x["audio"], atol=1e-3, rtol=1e-3)
