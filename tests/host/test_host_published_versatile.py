"""Versatile Diffusion's published files in ComfyUI, in both layouts."""

import shutil

import pytest
import tiny
import torch
import versatile_files

from codi_backend.checkpoints import versatile as published_versatile

IMAGE = torch.zeros(1, 4, 8, 8)


@pytest.fixture(scope="module")
def model():
    return tiny.build(tiny.VERSATILE)


@pytest.fixture
def save(host, monkeypatch, model):
    """Write files as the published ones are, but small, into a folder; returns what the loader calls it."""
    module = host.module("codi_backend.checkpoints.versatile")
    small = host.module("codi_backend.config").CoDiConfig.from_json(tiny.VERSATILE.to_json())
    monkeypatch.setattr(module, "CONFIG", small)
    monkeypatch.setattr(module.configure, "__defaults__", (small,))
    folder = host.models / "versatile"

    def call(layout="new"):
        states = dict(zip(("new", "old"), versatile_files.states(model)))
        versatile_files.save_files(folder, states[layout], bare=layout == "new")
        return "versatile/"

    yield call
    shutil.rmtree(folder)


@pytest.mark.parametrize("layout", ["new", "old"])
def test_a_folder_of_both_layouts(run_node, save, model, layout, sample):
    loaded, encoders, vae, audio_vae, text_vae = run_node("CoDiLoadModel", checkpoint=save(layout))
    assert vae and text_vae and audio_vae is None
    positive, negative = run_node("CoDiContextText", prompt_encoders=[encoders], text=["a star"])
    expected = model.context("text", "a star")
    torch.testing.assert_close(positive[0][0], expected.tokens, atol=1e-5, rtol=1e-5)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        when = torch.tensor([500.0])
        given = loaded.model.diffusion_model(noisy, when, expected.tokens, shares=positive[0][1]["codi_contexts"])
        wanted = model.diffuser({"image": noisy}, when, [("text", expected.tokens, 1.0)])["image"]
        torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-4)
        pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
        latents = model.encode("image", pixels.movedim(-1, 1))
        torch.testing.assert_close(vae.encode(pixels), latents, atol=1e-4, rtol=1e-4)
    for latent in (IMAGE, torch.zeros(1, 16, 1, 1)):
        (result,) = sample({"samples": latent}, loaded, steps=1, conditioning=(positive, negative))
        assert result.shape == latent.shape and result.isfinite().all()


def test_networks_alone_know_the_scale_of_their_latents(run_node, save):
    folder = save()
    loaded, _, vae, *_ = run_node("CoDiLoadModel", checkpoint=f"{folder}{published_versatile.FOUR_FLOW}")
    assert vae is None
    scale = tiny.VERSATILE.image_autoencoder.scale_factor
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model.process_latent_in(IMAGE + 1), IMAGE + scale)
        text = torch.ones(1, 16, 1, 1)
        assert torch.equal(loaded.model.process_latent_in(text), text)  # Unlike CoDi's, they have none.


def test_autoencoders_alone_are_no_model(host, run_node, save):
    from comfy_execution.graph import ExecutionBlocker

    name = f"{save()}{published_versatile.IMAGE_VAE}"
    blocked, encoders, vae, *_ = run_node("CoDiLoadModel", checkpoint=name)
    assert isinstance(blocked, ExecutionBlocker) and "holds no diffusion network" in blocked.message
    assert vae is not None and encoders.text is None


def test_networks_without_what_they_share(host, run_node):
    """As when a converted model's files are chosen one by one."""
    from comfy_execution.graph import ExecutionBlocker
    from host.tiny_checkpoint import save_tiny
    from tiny import hosted_versatile

    save_tiny(host.models / "alone.safetensors", ("contexts.image", "diffuser.time"), hosted_versatile())
    blocked, encoders, *_ = run_node("CoDiLoadModel", checkpoint="alone.safetensors")
    assert isinstance(blocked, ExecutionBlocker) and encoders.text is not None
    assert "alone.safetensors lacks contexts.image, diffuser.time; put all files" in blocked.message
