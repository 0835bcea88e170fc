"""The image KL-VAE and the mel VAE against the original's outputs (SPEC sections 5.1, 5.2 and 9)."""

import dataclasses

import pytest
import torch
from published import filled, read

from codi_backend.config.reference import audio_autoencoder_from_reference, image_autoencoder_from_reference
from codi_backend.models.autoencoders import AudioAutoencoder, ImageAutoencoder


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def image_case():
    meta, tensors = read("autokl_small")
    config = image_autoencoder_from_reference(meta)
    return filled(ImageAutoencoder(config), "autokl."), tensors


@pytest.fixture(scope="module")
def audio_case():
    meta, tensors = read("audioldm_small")
    config = audio_autoencoder_from_reference(meta)
    return filled(AudioAutoencoder(config), "audioldm."), tensors


@torch.inference_mode()
def test_image(image_case):
    autoencoder, golden = image_case
    pixels = (golden["in/image"] + 1) / 2
    posterior = autoencoder.posterior(pixels)
    close(posterior.mean, golden["out/mean"])
    close(posterior.logvar, golden["out/logvar"])
    latents = autoencoder.encode(pixels)
    close(latents * autoencoder.config.scale_factor, golden["out/latent_scaled_mean"])
    close(autoencoder.reconstruct(latents), golden["out/decoded_from_mean"])
    close(autoencoder.decode(latents), (golden["out/decoded_from_mean"] / 2 + 0.5).clamp(0, 1))


@torch.inference_mode()
def test_video(image_case):
    autoencoder, golden = image_case
    latents = autoencoder.encode((golden["in/video"] + 1) / 2)
    close(latents, golden["out/video_mean"])
    close(autoencoder.reconstruct(latents), golden["out/video_decoded"])
    close(autoencoder.decode(latents), (golden["out/video_decoded"] / 2 + 0.5).clamp(0, 1))


def test_video_of_one_frame_is_an_image(image_case):
    autoencoder, golden = image_case
    pixels = (golden["in/image"] + 1) / 2
    with torch.inference_mode():
        image, video = (autoencoder.encode(x, torch.Generator().manual_seed(3)) for x in (pixels, pixels[:, :, None]))
    assert torch.equal(image, video[:, :, 0])


def test_a_video_of_odd_size_is_refused(image_case):
    with pytest.raises(ValueError, match="50 x 32 pixels"):
        image_case[0].encode(torch.zeros(1, 3, 2, 32, 50))


def test_mel_bands(audio_case):
    autoencoder, golden = audio_case
    close(autoencoder.mel.bank, golden["const/mel_basis"], 1e-7)


def test_log_mel(audio_case, echo):
    """Centred, scaled to a peak of 0.5, padded to 102 frames."""
    autoencoder = AudioAutoencoder(audio_case[0].config)
    autoencoder.vae = echo
    close(autoencoder.encode(audio_case[1]["in/waveform"][:, None]), audio_case[1]["out/fbank"])


@torch.inference_mode()
def test_audio(audio_case):
    autoencoder, golden = audio_case
    latents = autoencoder.encode(golden["in/waveform"][:, None])
    close(latents, golden["out/mean"])
    close(latents * autoencoder.config.scale_factor, golden["out/latent_scaled_mean"])
    close(autoencoder.posterior(golden["out/fbank"]).logvar, golden["out/logvar"])
    close(autoencoder.decode_mel(latents), golden["out/decoded_mel"])


@torch.inference_mode()
def test_long_audio_is_truncated(audio_case):
    autoencoder, golden = audio_case
    waveform = golden["in/waveform"][:, None]
    longer = torch.cat([waveform, waveform.flip(-1)], -1)
    assert autoencoder.encode(longer).shape == golden["out/mean"].shape


@torch.inference_mode()
def test_loudness_does_not_matter_as_released_only(audio_case):
    released, golden = audio_case
    waveform = golden["in/waveform"][:, None]
    close(released.encode(waveform), released.encode(0.1 * waveform + 0.2))
    plain = AudioAutoencoder(dataclasses.replace(released.config, released_processing=False))
    plain.load_state_dict(released.state_dict())
    assert plain.encode(waveform).shape == (2, 8, 25, 16)
    assert (plain.encode(waveform) - plain.encode(0.1 * waveform + 0.2)).abs().max() > 0.1


@torch.inference_mode()
def test_latents_out_of_range_are_clamped(audio_case):
    autoencoder, golden = audio_case
    latents, scale = golden["out/mean"].clone(), autoencoder.config.scale_factor
    latents[0, 0, 0, 0] = 99 / scale
    within = autoencoder.decode(latents)
    latents[0, 0, 0, 0] = 101 / scale
    assert torch.equal(autoencoder.decode(latents), autoencoder.decode(latents.clamp(-10 / scale, 10 / scale)))
    assert not torch.equal(autoencoder.decode(latents), within)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision(image_case, audio_case, dtype):
    for (exact, golden), name in ((image_case, "in/image"), (audio_case, "in/waveform")):
        half = type(exact)(exact.config)
        half.load_state_dict(exact.state_dict())
        half.to(dtype)
        content = golden[name][:, None] if name == "in/waveform" else (golden[name] + 1) / 2
        latents = half.encode(content.to(dtype))
        out = half.decode(golden["out/mean"].to(dtype))
        for got, expected in ((latents, golden["out/mean"]), (out, exact.decode(golden["out/mean"]))):
            assert got.dtype == dtype and got.isfinite().all()
            assert (got.float() - expected).abs().mean() < 0.1 * expected.std()


def test_gradients(image_case, audio_case):
    image, image_golden = image_case
    audio, audio_golden = audio_case
    latents = image.posterior((image_golden["in/image"] + 1) / 2).sample()
    image.reconstruct(latents).square().mean().backward()
    audio.decode(audio.posterior(audio_golden["out/fbank"]).sample()).square().mean().backward()
    for name, parameter in [*image.named_parameters(), *audio.named_parameters()]:
        if not name.endswith("to_k.bias"):  # the same for all keys: it does not change a softmax
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    image.zero_grad()
    audio.zero_grad()


def test_unsupported_configurations():
    meta, _ = read("autokl_small")
    with pytest.raises(ValueError, match="embed_dim unlike z_channels"):
        image_autoencoder_from_reference({**meta, "embed_dim": 3})


def test_published_durations():
    meta, _ = read("audioldm_small")
    del meta["time"]
    assert audio_autoencoder_from_reference(meta).seconds == 10.24
    assert audio_autoencoder_from_reference({"ddconfig": meta["ddconfig"]}).vocoder.channels == 1024
