"""Prompts, latents and decoders."""

import torch
from host.tiny_checkpoint import tiny_config, tiny_parts


def test_empty_prompt_is_the_unconditional_one(run_node, tiny):
    positive, unconditional = run_node("CoDiPromptText", text_encoder=tiny[1], text="")
    assert torch.equal(positive[0][0], unconditional[0][0])
    embedding = run_node("CoDiPromptText", text_encoder=tiny[1], text="two blue hearts")[0][0][0]
    assert embedding.shape == (1, 1, 64) and not torch.allclose(embedding, unconditional[0][0])


def test_latents_have_the_size_asked_for(empty):
    image, audio = empty(width=96, height=64, seconds=1.3, batch_size=3)["samples"].unbind()
    assert image.shape == (3, 4, 8, 12)
    assert audio.shape == (3, 8, 16, 8)  # 16 steps of 0.08 s: the even number nearest to 1.3 s


def test_image_vae_gives_the_backends_pixels(host, run_node, tiny):
    backend = host.module("codi_backend")
    config = tiny_config(backend)
    own = backend.autoencoders.ImageAutoencoder(config.image_autoencoder).eval()
    own.load_state_dict(tiny_parts(backend, config)["autoencoders.image"])
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pixels = own.decode(latents)
        (decoded,) = run_node("CoDiDecodeImage", samples={"samples": latents}, vae=tiny[2])
        (stock,) = host.node("VAEDecode")().decode(tiny[2], {"samples": latents})
        (encoded,) = host.node("VAEEncode")().encode(tiny[2], decoded)
        tiled = tiny[2].decode_tiled(latents, tile_x=8, tile_y=8, overlap=2)
        assert decoded.shape == (2, 64, 64, 3) and torch.equal(decoded, stock)
        torch.testing.assert_close(decoded.movedim(-1, 1), pixels, atol=1e-4, rtol=0)
        torch.testing.assert_close(encoded["samples"], own.encode(pixels), atol=1e-4, rtol=1e-4)
        assert tiled.shape == decoded.shape


def test_audio_is_mono_at_the_models_rate(run_node, tiny, empty, sample, host):
    streams = host.module("nodes.streams")
    (audio,) = run_node("CoDiDecodeAudio", samples={"samples": streams.join(sample(empty()))}, audio_vae=tiny[3])
    assert audio["sample_rate"] == 16000 and audio["waveform"].shape == (1, 1, 40960)
    assert audio["waveform"].isfinite().all() and audio["waveform"].abs().max() <= 1
