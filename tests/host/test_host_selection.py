"""Picking the best result of a batch."""

import dataclasses

import pytest
import torch


@pytest.fixture
def results(host, empty):
    """Three results of image and audio, which differ."""
    streams = host.module("nodes.runtime.latent_packing")
    latent = empty(image=True, audio=True, video=False, text=False, batch_size=3)
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(z.shape, generator=generator) for z in latent["samples"].unbind()]
    return latent | {"samples": streams.join(made)}


def test_the_backends_pick(host, run_node, tiny, results):
    """That of `select` on the scaled latents, in place of which every result is tried."""
    model = tiny[0]
    diffuser, config = model.model.diffusion_model.diffuser, model.model.codi_config
    scale = host.module("codi_backend.modalities").scale_factor
    with torch.inference_mode():
        (picked,) = run_node("CoDiPickBest", model=model, samples=results)
        names = ("image", "audio")
        like = next(diffuser.parameters())
        scaled = {n: z.to(like) * scale(config, n) for n, z in zip(names, results["samples"].unbind(), strict=True)}
        best = host.module("codi_backend.sampling.best_of_n").select(diffuser, scaled)
    for stream, rows in zip(picked["samples"].unbind(), results["samples"].unbind(), strict=True):
        assert torch.equal(stream, rows[best : best + 1])


@pytest.mark.parametrize("best", [0, 2])
def test_mask_and_batch_index_are_those_of_the_result(host, run_node, tiny, results, monkeypatch, best):
    monkeypatch.setattr(host.module("nodes.latents.pick_best"), "select", lambda *_: best)
    streams = host.module("nodes.runtime.latent_packing")
    image, audio = results["samples"].unbind()
    masks = [torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 8, 8), torch.ones(1, 1, 32, 8)]
    held = results | {"noise_mask": streams.join(masks), "batch_index": [5, 6, 7]}
    (picked,) = run_node("CoDiPickBest", model=tiny[0], samples=held)
    assert torch.equal(picked["samples"].unbind()[0], image[best : best + 1])
    assert torch.equal(picked["samples"].unbind()[1], audio[best : best + 1])
    assert [mask.mean() for mask in picked["noise_mask"].unbind()] == [best, 1] and picked["batch_index"] == [5 + best]
    assert len(held["samples"].unbind()[0]) == 3


def test_one_result_is_the_best(run_node, tiny, empty):
    latent = empty(image=True, audio=True, video=False, text=True)
    (picked,) = run_node("CoDiPickBest", model=tiny[0], samples=latent)
    assert all(map(torch.equal, picked["samples"].unbind(), latent["samples"].unbind()))


def test_what_cannot_be_compared(host, run_node, tiny, empty, results, monkeypatch):
    join = host.module("nodes.runtime.latent_packing").join
    image, audio = results["samples"].unbind()
    for samples, message in (
        (empty(image=True, audio=False, video=False, text=False), "only one stream; switch another on"),
        ({"samples": join([image, audio[:2]])}, "the batch sizes of the streams differ"),
        ({"samples": join([image, audio[:, :, :3]])}, "the audio latent is 3 x"),
        ({"samples": join([image, audio * float("nan")])}, "the audio latent holds values that are not finite"),
        ({"samples": join([image[:0], audio[:0]])}, "this latent is empty"),
    ):
        with pytest.raises(ValueError, match=f"^samples: .*{message}"):
            run_node("CoDiPickBest", model=tiny[0], samples=samples)
    config = tiny[0].model.codi_config
    networks = {n: dataclasses.replace(c, connector=(False, False)) for n, c in config.diffuser.networks.items()}
    unaligned = dataclasses.replace(config, diffuser=dataclasses.replace(config.diffuser, networks=networks))
    monkeypatch.setattr(tiny[0].model, "codi_config", unaligned)
    with pytest.raises(ValueError, match="^model: 'tiny' has no latent alignment for image, audio.*later edition"):
        run_node("CoDiPickBest", model=tiny[0], samples=results)
