"""The networks beside the diffuser: what they give, that they can be interrupted, and how much memory they ask for."""

import pytest
import torch
from host.tiny_checkpoint import tiny_config, tiny_parts


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_empty_prompt_is_the_unconditional_one(run_node, tiny):
    positive, unconditional = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="")
    assert torch.equal(positive[0][0], unconditional[0][0])
    embedding = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="two blue hearts")[0][0][0]
    assert embedding.shape == (1, 1, 64) and not torch.allclose(embedding, unconditional[0][0])


def test_image_vae_gives_the_backends_pixels(host, run_node, tiny):
    backend = host.module("codi_backend")
    config = tiny_config(backend)
    own = backend.models.autoencoders.ImageAutoencoder(config.image_autoencoder).eval()
    own.load_state_dict(tiny_parts(config)["autoencoders.image"])
    latents = random(2, 4, 8, 8)
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


def test_image_vae_is_a_vae_before_and_after_its_first_use(run_node):
    import comfy.sd

    vae = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")[2]
    assert isinstance(vae, comfy.sd.VAE) and not hasattr(vae, "no_such_thing")
    assert (vae.latent_channels, vae.frame_rate, vae.spacial_compression_decode()) == (4, 6.25, 8)
    assert vae.first_stage_model is vae.patcher.model and not hasattr(vae, "no_such_thing")


def test_audio_is_mono_at_the_models_rate(run_node, tiny, empty, sample, host):
    streams = host.module("nodes.runtime.latent_packing")
    (audio,) = run_node("CoDiDecodeAudio", samples={"samples": streams.join(sample(empty()))}, audio_vae=tiny[3])
    assert audio["sample_rate"] == 16000 and audio["waveform"].shape == (1, 1, 40960)
    assert audio["waveform"].isfinite().all() and audio["waveform"].abs().max() <= 1


@pytest.mark.parametrize("rate", [16000, 44100, 44099])
def test_audio_vae_encodes_stereo_of_any_rate(host, tiny, rate):
    waveform = 0.2 * random(2, 2, rate)
    codi = host.module("codi_backend.pipeline").CoDi.load(host.models / "tiny.safetensors", only=["autoencoders.audio"])
    with torch.inference_mode():
        latents = tiny[3].encode(waveform, rate)
        assert latents.shape == (2, 8, 13, 8)  # steps of 0.08 s
        torch.testing.assert_close(
            latents, codi.encode("audio", waveform.mean(1, keepdim=True), rate), atol=1e-4, rtol=0
        )


def test_text_vae_gives_back_what_the_built_in_model_knows(run_node):
    text_vae = run_node("CoDiLoadModel", checkpoint="mini (built in)")[4]
    texts = ["three red stars, slowly", "a blue heart"] * 40
    with torch.inference_mode():
        latents = text_vae.encode(texts)
        assert latents.shape == (80, 64, 1, 1) and text_vae.decode(latents) == texts


def test_long_texts_can_be_interrupted_between_tokens(tiny, monkeypatch):
    import comfy.model_management as mm

    asked = []

    def interrupt():
        asked.append(len(asked))
        if len(asked) == 5:
            raise mm.InterruptProcessingException

    monkeypatch.setattr(mm, "throw_exception_if_processing_interrupted", interrupt)
    never_ending = {"greedy": False, "seed": 3, "max_tokens": 32}
    with torch.inference_mode(), pytest.raises(mm.InterruptProcessingException):
        tiny[4].decode(random(8, 24, 1, 1), **never_ending)
    assert len(asked) == 5


@pytest.fixture
def asked(monkeypatch):
    """How much memory is asked for when parts are loaded, in bytes."""
    import comfy.model_management as mm

    amounts, load = [], mm.load_models_gpu

    def recorded(models, memory_required=0, **options):
        amounts.append(memory_required)
        return load(models, memory_required=memory_required, **options)

    monkeypatch.setattr(mm, "load_models_gpu", recorded)
    return amounts


def peak(function) -> int:
    """The most memory that is taken at once while a function runs, in bytes, beyond what was taken before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        taken += event.nbytes()
        most = max(most, taken)
    return most


# Part (1: prompt encoders, 2: VAE, 3: audio VAE, 4: text VAE), content, and what is done with it.
SENTENCE = "three red stars, slowly , and no other thing of any kind"
ENDLESS = {"greedy": False, "temperature": 100.0, "seed": 2}  # the length that is estimated for
RUNS = {
    "texts": (1, [SENTENCE] * 64, lambda encoders, texts: encoders.text.encode(texts)),
    "images": (1, random(16, 3, 64, 64).sigmoid(), lambda encoders, pixels: encoders.image.encode(pixels)),
    "video": (1, random(1, 3, 8, 64, 64).sigmoid(), lambda encoders, frames: encoders.image.encode_video(frames)),
    "audio": (1, random(4, 1, 40960), lambda encoders, waveform: encoders.audio.encode(waveform, 16000)),
    "image to latent": (2, random(1, 256, 256, 3), lambda vae, image: vae.encode(image)),
    "latent to image": (2, random(1, 4, 32, 32), lambda vae, latents: vae.decode(latents)),
    "audio to latent": (3, random(1, 1, 81920), lambda vae, waveform: vae.encode(waveform, 16000)),
    "latent to audio": (3, random(1, 8, 64, 8), lambda vae, latents: vae.decode(latents)),
    "texts to latents": (4, [SENTENCE] * 64, lambda vae, texts: vae.encode(texts)),
    "latents to texts": (4, random(64, 64, 1, 1), lambda vae, latents: vae.decode(latents, **ENDLESS)),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_memory_asked_for_is_what_is_taken(run_node, asked, name):
    number, content, work = RUNS[name]
    part = run_node("CoDiLoadModel", checkpoint="mini (built in)")[number]
    with torch.inference_mode():
        work(part, content)  # reads the weights
        taken = peak(lambda: work(part, content))
    print(f"{name}: asked for {asked[-1] / 1e6:.2f} MB, took {taken / 1e6:.2f} MB")
    assert 0.95 * taken < asked[-1] < 1.4 * taken


def test_what_is_asked_for_grows_with_the_content(tiny, asked):
    with torch.inference_mode():
        tiny[1].image.encode(random(1, 3, 64, 64).sigmoid())
        tiny[1].image.encode(random(16, 3, 64, 64).sigmoid())
        assert asked[1] == pytest.approx(16 * asked[0])
        tiny[1].image.encode(random(160, 3, 64, 64).sigmoid())
        assert asked[2:] == [asked[1]] * 10  # one batch after the other


def test_what_is_loaded_in_part_gives_the_same(run_node):
    import comfy.model_management as mm

    _, encoders, _, _, text_vae = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")

    def results():
        with torch.inference_mode():
            return [
                encoders.text.encode(["a red star"]),
                encoders.image.encode(random(1, 3, 40, 40).sigmoid()),
                encoders.image.encode_video(random(1, 3, 3, 40, 40).sigmoid()),
                encoders.audio.encode(random(1, 1, 8000), 16000),
                text_vae.encode(["a red star"]),
            ]

    whole = results()
    mm.unload_all_models()
    patchers = [part.patcher for part in (encoders.text, encoders.image, encoders.audio, text_vae)]
    for patcher in patchers:
        patcher.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=1)
    assert all(torch.equal(a, b) for a, b in zip(whole, results(), strict=True))
    for patcher in patchers:
        patcher.unpatch_model()
