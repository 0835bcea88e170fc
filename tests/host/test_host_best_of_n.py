"""Best-of-N in graphs: the same selection as by the library, with any sampler of ComfyUI."""

import pytest
import torch

SETTINGS = {"seed": 3, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal"}


@pytest.fixture
def joint(run_node, tiny, prompts):
    """CoDi Sampler on the tiny model; returns the streams of the result."""
    positive, negative = prompts

    def call(latent, mode="paper", **settings):
        given = {"mode": mode, "strength": 1.0, "denoise": 1.0, "candidates": 1, **SETTINGS, **settings}
        (result,) = run_node(
            "CoDiSampler", model=tiny[0], positive=positive, negative=negative, latent_image=latent, **given
        )
        return result["samples"].unbind()

    return call


def library(host, tiny, prompts, noise, number, held=None):
    """`sample` of the library, with the settings above, on given noise; scaled latents by stream."""
    sampling = {name: host.module(f"codi_backend.sampling.{name}") for name in ("samplers", "settings")}
    prompt = host.module("codi_backend.conditioning.prompt").Prompt
    config = tiny[0].model.codi_config
    batch = len(noise["image"]) // number
    tokens = [conditioning[0][0].expand(batch, -1, -1).float() for conditioning in prompts]
    return sampling["samplers"].sample(
        tiny[0].model.diffusion_model.diffuser,
        noise,
        prompt(*tokens),
        sampling["settings"].SamplingSettings(4, "euler", 4.0, num_candidates=number),
        sampling["settings"].AlignmentSettings(modality_guidance=config.modality_guidance),
        held=held,
        latent_means=config.diffuser.latent_means,
    )


@pytest.mark.parametrize(("number", "batch"), [(4, 1), (3, 2)])
def test_the_graph_gives_what_the_command_gives(host, joint, tiny, prompts, empty, number, batch):
    """The same candidate of the same noise is kept, and ends in the same latents."""
    import comfy.sample
    import comfy.utils

    latent = empty(batch_size=batch)
    with torch.inference_mode():
        drawn = comfy.sample.prepare_noise(latent["samples"], SETTINGS["seed"]).unbind()
        packed, shapes = comfy.utils.pack_latents(drawn)
        every = host.module("nodes.samplers.best_of_n").candidate_noise(packed, SETTINGS["seed"], number)
        assert torch.equal(every[:batch], packed) and len(every) == number * batch
        noise = dict(zip(("image", "audio"), comfy.utils.unpack_latents(every, shapes)))
        expected = library(host, tiny, prompts, noise, number)
        alone = [library(host, tiny, prompts, {n: z[i::batch] for n, z in noise.items()}, 1) for i in range(batch)]
    found = joint(latent, candidates=number)
    kept, picked = [], []
    for name, stream in zip(("image", "audio"), found, strict=True):
        scale = host.module("codi_backend.modalities").scale_factor(tiny[0].model.codi_config, name)
        for i in range(batch):
            # A kept candidate is what it is without the others. The two Euler samplers begin 0.2 % apart.
            here, there = (
                (alone[i][name].cpu() - z[i]).flatten(1).norm(dim=1) for z in (expected[name].cpu(), stream * scale)
            )
            assert here.min() < 1e-2 and there.min() < 0.5 * there.sort().values[1]
            kept.append(int(here.argmin()))
            picked.append(int(there.argmin()))
    assert kept == picked and kept[:batch] == kept[batch:] and any(kept)


def test_one_candidate_is_the_stock_sampler(joint, sample, empty):
    stock = sample(empty(), seed=3, steps=4, cfg=4.0)
    assert all(map(torch.equal, joint(empty(), candidates=1), stock))
    assert any(not torch.equal(a, b) for a, b in zip(joint(empty(), candidates=6), stock))


def test_the_models_own_number_is_the_default(joint, empty, tiny, monkeypatch):
    import dataclasses

    six = joint(empty(), candidates=6)
    config = dataclasses.replace(tiny[0].model.codi_config, num_candidates=6)
    monkeypatch.setattr(tiny[0].model, "codi_config", config)
    assert all(map(torch.equal, joint(empty(), candidates=0), six))
    unaligned = joint(empty(), mode="none", candidates=0)  # nothing to compare
    assert all(map(torch.equal, unaligned, joint(empty(), mode="none", candidates=1)))


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "dpmpp_2m", "uni_pc", "heun", "lcm", "res_multistep", "ddim"])
def test_any_sampler_can_be_wrapped(joint, empty, sampler):
    settings = {"sampler_name": sampler, "scheduler": "sgm_uniform", "steps": 6, "candidates": 3}
    first = joint(empty(batch_size=2), **settings)
    assert [tuple(z.shape) for z in first] == [(2, 4, 8, 8), (2, 8, 32, 8)]
    assert all(z.isfinite().all() and z.std() > 0.1 for z in first)
    assert all(map(torch.equal, joint(empty(batch_size=2), **settings), first))


def test_held_streams_and_starts(host, run_node, joint, tiny, empty):
    generator = torch.Generator().manual_seed(0)
    streams = host.module("nodes.runtime.latent_packing")
    given = [torch.randn(z.shape, generator=generator) for z in empty()["samples"].unbind()]
    (latent,) = run_node(
        "CoDiHoldStreams", model=tiny[0], samples={"samples": streams.join(given)}, image=True, video=False,
        audio=False, text=False,
    )  # fmt: skip
    image, audio = joint(latent, candidates=4)
    assert torch.equal(image, given[0])
    assert not torch.allclose(audio, joint(latent, candidates=1)[1]) or torch.equal(audio, joint(latent)[1])
    started = joint({"samples": streams.join(given)}, candidates=3, denoise=0.5, steps=6)
    assert all(z.isfinite().all() for z in started)


def test_what_cannot_be_compared(joint, empty):
    with pytest.raises(ValueError, match="Candidates are compared by how well their streams agree"):
        joint(empty(), mode="none", candidates=3)
    with pytest.raises(ValueError, match="^candidates: 17 is out of range; choose a whole number from 0 to 16"):
        joint(empty(), candidates=17)


def test_memory_is_estimated_for_all_candidates(tiny):
    model = tiny[0].model
    one = model.memory_required([1, 4, 8, 8])
    model.num_candidates = 5
    try:
        assert model.memory_required([1, 4, 8, 8]) == 5 * one
    finally:
        model.num_candidates = 1
