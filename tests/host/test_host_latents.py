"""Empty, encoded, joined, split and held latents."""

import dataclasses
from fractions import Fraction

import pytest
import torch

pytestmark = pytest.mark.audio

ALL = {"image": True, "video": True, "audio": True, "text": True}


@pytest.fixture
def make_video(host):
    """A VIDEO whose frame i is as bright as i / 100."""
    from comfy_api.latest import InputImpl, Types

    def make(frames, rate, size=(32, 48)):
        images = (torch.arange(frames) / 100)[:, None, None, None].expand(-1, *size, 3)
        return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(rate)))

    return make


def make_audio(seconds, rate, channels=1, batch=1):
    tone = 0.5 * torch.sin(torch.arange(int(seconds * rate)) / rate * 2 * torch.pi * 440)
    return {"waveform": tone.expand(batch, channels, -1), "sample_rate": rate}


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_all_streams_have_the_size_asked_for(empty):
    shapes = [
        list(z.shape)
        for z in empty(**ALL, width=96, height=64, frames=7, seconds=1.2, batch_size=3)["samples"].unbind()
    ]
    assert shapes == [[3, 4, 8, 12], [3, 4, 7, 8, 12], [3, 8, 16, 8], [3, 24, 1, 1]]


@pytest.mark.parametrize(
    ("size", "frames", "steps"),
    [({"seconds": 3.0}, 19, 38), ({"frames": 19}, 19, 38), ({"frames": 7}, 7, 14), ({"seconds": 1.3}, 9, 18)],
)
def test_frames_or_seconds_alone_set_both_lengths(host, run_node, empty, tiny, size, frames, steps):
    """To what the library gives, and to what audio is encoded."""
    video, audio = empty(image=False, video=True, **size)["samples"].unbind()
    assert (video.shape[2], audio.shape[2]) == (frames, steps)
    config, rule = tiny[0].model.codi_config, host.module("codi_backend.modalities").latent_shape
    assert rule(config, "video", **size) == video.shape[1:] and rule(config, "audio", **size) == audio.shape[1:]
    seconds = size.get("seconds", frames / 6.25)
    (held,) = run_node("CoDiEncodeAudio", audio=make_audio(5, 44100), audio_vae=tiny[3], seconds=seconds)
    assert held["samples"].shape == audio.shape


def test_lengths_that_disagree(empty):
    with pytest.raises(ValueError, match=r"^frames, seconds: 7 frames last 1.12 s .* not the 3 s"):
        empty(video=True, frames=7, seconds=3.0)


def test_what_is_cut_is_logged(run_node, tiny, make_video, caplog):
    run_node("CoDiEncodeAudio", audio=make_audio(5, 16000), audio_vae=tiny[3], seconds=0.0)
    run_node("CoDiEncodeVideo", video=make_video(30, 25), vae=tiny[2], frame_rate=0.0, frames=0)
    run_node("CoDiEncodeVideo", video=make_video(30, 25).get_components().images, vae=tiny[2], frame_rate=0.0, frames=0)
    assert [record.message for record in caplog.records if record.message.startswith("CoDi")] == [
        "CoDi Encode Audio: the first 2.56 of 5.00 s are encoded; raise seconds, or choose another part by "
        "Trim Audio Duration.",
        "CoDi Encode Video: the first 4 of 8 frames are encoded; raise frames, or choose another part by Video Slice.",
        "CoDi Encode Video: the first 4 of 30 frames are encoded; raise frames, or choose another part by Get Image "
        "from Batch.",
    ]
    caplog.clear()
    run_node("CoDiEncodeAudio", audio=make_audio(2.56, 44100), audio_vae=tiny[3], seconds=0.0)
    run_node("CoDiEncodeVideo", video=make_video(4, "25/4"), vae=tiny[2], frame_rate=0.0, frames=0)
    assert not [record for record in caplog.records if record.message.startswith("CoDi")]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), 1e9])
def test_impossible_lengths_of_audio(run_node, tiny, seconds):
    with pytest.raises(ValueError, match="^seconds: .* is out of range; choose a number from 0 to 600"):
        run_node("CoDiEncodeAudio", audio=make_audio(1, 16000), audio_vae=tiny[3], seconds=seconds)


def test_zero_stands_for_the_models_own(empty):
    shapes = [list(z.shape) for z in empty(**ALL)["samples"].unbind()]
    assert shapes == [[1, 4, 8, 8], [1, 4, 4, 8, 8], [1, 8, 32, 8], [1, 24, 1, 1]]


def test_empty_latents_are_mean_ones(host, empty, tiny):
    """In VAE units, as every LATENT; a model without means has zeros."""
    config = tiny[0].model.codi_config
    streams = empty(**ALL, batch_size=2)["samples"].unbind()
    known = host.module("nodes.runtime.latent_packing")
    for name, stream in zip(known.STREAMS, streams, strict=True):
        scale = host.module("codi_backend.modalities").scale_factor(config, name)
        for channel, mean in enumerate(config.diffuser.latent_means[name]):
            torch.testing.assert_close(stream[:, channel], torch.full_like(stream[:, channel], mean / scale))
    silent = dataclasses.replace(config, diffuser=dataclasses.replace(config.diffuser, latent_means={}))
    latent = host.module("nodes.latents.empty").empty_latent(silent, [(4, 8, 8), (24, 1, 1)], 1)
    assert not any(stream.any() for stream in latent["samples"].unbind())


def test_images_are_encoded_as_the_stock_node_does(host, run_node, tiny):
    image = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    (latent,) = run_node("CoDiEncodeImage", image=image, vae=tiny[2])
    with torch.inference_mode():
        (stock,) = host.node("VAEEncode")().encode(tiny[2], image)
    assert latent["samples"].shape == (2, 4, 4, 6) and torch.equal(latent["samples"], stock["samples"])
    opaque = torch.cat([image, torch.ones(2, 32, 48, 1)], 3)
    assert torch.equal(run_node("CoDiEncodeImage", image=opaque, vae=tiny[2])[0]["samples"], stock["samples"])


def test_what_is_transparent_is_encoded_as_white(run_node, tiny):
    def encoded(image):
        return run_node("CoDiEncodeImage", image=image, vae=tiny[2])[0]["samples"]

    image = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    image = torch.cat([image, (torch.arange(32) < 16).float()[:, None].expand(1, 32, 32, 1)], 3)
    white = torch.where(image[..., 3:] > 0, image[..., :3], 1.0)
    torch.testing.assert_close(encoded(image), encoded(white))


def encoded_frames(run_node, tiny, video, **given):
    """Which frames of a `make_video` are in the latent: how bright they are, in hundredths."""
    (latent,) = run_node("CoDiEncodeVideo", video=video, vae=tiny[2], **{"frame_rate": 0.0, "frames": 0} | given)
    levels = torch.arange(100.0)[:, None, None, None].expand(-1, 32, 48, 3) / 100
    known = torch.cat([run_node("CoDiEncodeImage", image=some, vae=tiny[2])[0]["samples"] for some in levels.split(50)])
    distances = (latent["samples"][0].movedim(1, 0)[:, None] - known).flatten(2).norm(dim=2)
    return distances.argmin(1).tolist()


def test_a_video_is_taken_at_the_models_rate_and_length(run_node, tiny, make_video):
    # The tiny model: 4 frames, 6.25 a second.
    assert encoded_frames(run_node, tiny, make_video(4, "25/4")) == [0, 1, 2, 3]
    assert encoded_frames(run_node, tiny, make_video(30, 25)) == [0, 4, 8, 12]
    assert encoded_frames(run_node, tiny, make_video(8, 25)) == [0, 4]  # No frame is made up.
    assert encoded_frames(run_node, tiny, make_video(30, 25), frames=7) == [0, 4, 8, 12, 16, 20, 24]
    assert encoded_frames(run_node, tiny, make_video(30, 25), frame_rate=12.5, frames=3) == [0, 2, 4]


def test_frames_are_taken_as_they_are(run_node, tiny, make_video):
    frames = make_video(30, 25).get_components().images
    assert encoded_frames(run_node, tiny, frames) == [0, 1, 2, 3]
    assert encoded_frames(run_node, tiny, frames, frame_rate=1.0, frames=6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (11025, 6), (8000, 1)])
def test_audio_of_any_rate_and_channels(run_node, tiny, rate, channels):
    def encode(audio, seconds=0.0):
        return run_node("CoDiEncodeAudio", audio=audio, audio_vae=tiny[3], seconds=seconds)[0]["samples"]

    latent = encode(make_audio(2.56, rate, channels, batch=2))
    assert latent.shape == (2, 8, 32, 8)
    assert (latent[:1] - encode(make_audio(2.56, 16000))).abs().mean() < 0.2 * latent.std()
    assert encode(make_audio(5.0, rate, channels)).shape == (1, 8, 32, 8)
    assert encode(make_audio(0.01, rate, channels)).shape == (1, 8, 32, 8)
    assert encode(make_audio(0.9, rate, channels), seconds=1.2).shape == (1, 8, 16, 8)


def test_texts_become_a_batch(run_node, tiny):
    texts = ["two red stars", "three blue stars , slowly"]
    (latent,) = run_node("CoDiEncodeText", text=texts, text_vae=[tiny[4]])
    assert latent["samples"].shape == (2, 24, 1, 1)
    with torch.inference_mode():
        assert torch.equal(latent["samples"], tiny[4].encode(texts))


def test_what_is_encoded_can_be_sampled(run_node, tiny, sample, make_video):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    parts = {
        "latent_1": run_node("CoDiEncodeText", text=["two red stars"], text_vae=[tiny[4]])[0],
        "latent_2": run_node("CoDiEncodeAudio", audio=make_audio(1, 44100, 2), audio_vae=tiny[3], seconds=0.0)[0],
        "latent_3": run_node("CoDiEncodeImage", image=image, vae=tiny[2])[0],
        "latent_4": run_node(
            "CoDiEncodeVideo", video=make_video(9, 25, (64, 64)), vae=tiny[2], frame_rate=0.0, frames=0
        )[0],
    }
    (latent,) = run_node("CoDiJoinLatents", latents=parts)
    order = ("latent_3", "latent_4", "latent_2", "latent_1")
    assert equal(latent["samples"].unbind(), [parts[name]["samples"] for name in order])
    assert "noise_mask" not in latent
    assert [z.shape for z in sample(latent, steps=1)] == [z.shape for z in latent["samples"].unbind()]


def test_masks_survive_joining_and_splitting(host, run_node, tiny, empty):
    image, audio = empty(audio=False), empty(image=False)
    mask = torch.zeros(1, 64, 64)
    with torch.inference_mode():
        (masked,) = host.node("SetLatentNoiseMask")().set_mask(image, mask)
    (joint,) = run_node("CoDiJoinLatents", latents={"latent_1": audio, "latent_2": masked})
    one, other = joint["noise_mask"].unbind()
    assert torch.equal(one, masked["noise_mask"]) and torch.equal(other, torch.ones(1, 1, 32, 8))
    rest = empty(image=False, video=True, audio=False, text=True)
    (more,) = run_node("CoDiJoinLatents", latents={"latent_1": rest, "latent_2": joint})
    assert [tuple(m.shape) for m in more["noise_mask"].unbind()] == [
        (1, 1, 64, 64),
        (1, 1, 4, 8, 8),
        (1, 1, 32, 8),
        (1, 1, 1, 1),
    ]
    parts = run_node("CoDiSplitLatent", model=tiny[0], samples=more)
    assert all(torch.is_tensor(part["samples"]) and torch.is_tensor(part["noise_mask"]) for part in parts)
    assert torch.equal(parts[0]["noise_mask"], masked["noise_mask"]) and parts[1]["noise_mask"].all()
    assert "noise_mask" not in image and "noise_mask" not in audio


def test_a_plain_mask_is_that_of_the_first_stream(host, run_node, tiny, empty):
    """As it is to the stock samplers."""
    joint = empty()
    with torch.inference_mode():
        (masked,) = host.node("SetLatentNoiseMask")().set_mask(joint, torch.zeros(1, 64, 64))
    image, _, audio, _ = run_node("CoDiSplitLatent", model=tiny[0], samples=masked)
    assert not image["noise_mask"].any() and "noise_mask" not in audio


def test_splitting_undoes_joining(run_node, tiny, empty):
    streams = run_node("CoDiSplitLatent", model=tiny[0], samples=empty(**ALL, batch_size=2))
    assert equal([part["samples"] for part in streams], empty(**ALL, batch_size=2)["samples"].unbind())
    (joint,) = run_node("CoDiJoinLatents", latents={f"latent{i}": part for i, part in enumerate(streams)})
    assert equal(joint["samples"].unbind(), [part["samples"] for part in streams])


def test_an_absent_stream_blocks_what_needs_it(run_node, tiny, empty):
    from comfy_execution.graph_utils import ExecutionBlocker

    image, video, audio, text = run_node("CoDiSplitLatent", model=tiny[0], samples=empty())
    assert image["samples"].shape == (1, 4, 8, 8) and audio["samples"].shape == (1, 8, 32, 8)
    for name, output in (("video", video), ("text", text)):
        assert isinstance(output, ExecutionBlocker) and f"samples: there is no {name} stream" in output.message


def test_held_streams_are_masked(run_node, tiny, empty):
    latent = empty(**ALL)
    off = dict.fromkeys(ALL, False)
    (held,) = run_node("CoDiHoldStreams", model=tiny[0], samples=latent, **off | {"video": True, "text": True})
    assert [float(mask.mean()) for mask in held["noise_mask"].unbind()] == [1, 0, 1, 0]
    assert "noise_mask" not in latent
    (more,) = run_node("CoDiHoldStreams", model=tiny[0], samples=held, **off | {"image": True})
    assert [float(mask.mean()) for mask in more["noise_mask"].unbind()] == [0, 0, 1, 0]
    (same,) = run_node("CoDiHoldStreams", model=tiny[0], samples=held, **off)
    assert equal(same["noise_mask"].unbind(), held["noise_mask"].unbind())


@pytest.mark.parametrize(
    ("held", "sampler"),
    [("image", "dpmpp_2m"), ("video", "euler_ancestral"), ("audio", "uni_pc"), ("text", "dpm_fast")],
)
def test_a_held_stream_comes_back(run_node, tiny, empty, sample, held, sampler):
    generator = torch.Generator().manual_seed(0)
    latent = empty(**ALL)
    streams = dict(zip(ALL, latent["samples"].unbind()))
    streams[held] = torch.randn(streams[held].shape, generator=generator)
    parts = {f"latent{i}": {"samples": z} for i, z in enumerate(streams.values())}
    (latent,) = run_node("CoDiJoinLatents", latents=parts)
    (latent,) = run_node("CoDiHoldStreams", model=tiny[0], samples=latent, **{name: name == held for name in ALL})
    for name, result in zip(ALL, sample(latent, steps=3, sampler=sampler), strict=True):
        if name == held:
            assert torch.equal(result, streams[held])
        else:
            assert result.std() > 0.1


def test_in_a_graph(host):
    """Audio and a text for a video, as the browser asks for them: growing sockets, a curve, either type of video."""
    model, vae, off = ["load", 0], ["load", 2], dict.fromkeys(ALL, False)
    whole_video = {"vae": vae, "frame_rate": 0.0, "frames": 0}
    nodes = {
        "load": ("CoDiLoadModel", {"checkpoint": "tiny.safetensors"}),
        "prompt": ("CoDiPromptText", {"prompt_encoders": ["load", 1], "text": "two red stars"}),
        "scene": ("CoDiExampleScene", {"colour": "red", "shape": "star", "count": 2, "tempo": "fast"}),
        "video": ("CoDiEncodeVideo", {"video": ["scene", 1], **whole_video}),
        "empty": ("CoDiEmptyLatent", {"model": model} | off | {"audio": True, "text": True}),
        "joint": ("CoDiJoinLatents", {"latents.latent_1": ["empty", 0], "latents.latent_2": ["video", 0]}),
        "held": ("CoDiHoldStreams", {"model": model, "samples": ["joint", 0]} | off | {"video": True}),
        "pair": ("CoDiAlignmentPair", {"model": model, "listener": "audio", "speaker": "text", "strength": 0.5}),
        "curve": (
            "CoDiAlignmentCurve",
            {"model": ["pair", 0], "curve": {"points": [[0.0, 1.0], [1.0, 0.5]], "interpolation": "linear"}},
        ),
        "sample": (
            "CoDiSampler",
            {"model": ["curve", 0], "positive": ["prompt", 0], "negative": ["prompt", 1], "latent_image": ["held", 0]},
        ),
        "audio": ("CoDiDecodeAudio", {"samples": ["sample", 0], "audio_vae": ["load", 3]}),
        "save": ("SaveAudio", {"audio": ["audio", 0]}),
        "frames": ("CoDiEncodeVideo", {"video": ["scene", 0], **whole_video}),
        "still": ("CoDiEncodeImage", {"image": ["scene", 0], "vae": vae}),
        "both": ("CoDiJoinLatents", {"latents.latent_1": ["frames", 0], "latents.latent_2": ["still", 0]}),
        "parts": ("CoDiSplitLatent", {"model": model, "samples": ["both", 0]}),
        "image": ("VAEDecode", {"samples": ["parts", 0], "vae": vae}),
        "show": ("PreviewImage", {"images": ["image", 0]}),
    }
    nodes["sample"][1]["steps"] = 1

    def filled(kind, given):
        """What is not given is as a new node has it in the browser."""
        required = host.node(kind).INPUT_TYPES()["required"]
        usual = {name: row[1]["default"] for name, row in required.items() if "default" in (row[1:] or [{}])[0]}
        return usual | given

    prompt = {name: {"class_type": kind, "inputs": filled(kind, given)} for name, (kind, given) in nodes.items()}
    outputs = host.run(prompt)
    assert outputs["save"]["audio"] and outputs["show"]["images"]
