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
    assert all(torch.is_tensor(part["samples"]) and torch.is_tensor(part["noise_mask"]) for part in parts[:8])
    assert torch.equal(parts[0]["noise_mask"], masked["noise_mask"]) and parts[1]["noise_mask"].all()
    assert "noise_mask" not in image and "noise_mask" not in audio


def test_a_plain_mask_is_that_of_the_first_stream(host, run_node, tiny, empty):
    """As it is to the stock samplers."""
    joint = empty()
    with torch.inference_mode():
        (masked,) = host.node("SetLatentNoiseMask")().set_mask(joint, torch.zeros(1, 64, 64))
    image, _, audio, *_ = run_node("CoDiSplitLatent", model=tiny[0], samples=masked)
    assert not image["noise_mask"].any() and "noise_mask" not in audio


def test_splitting_undoes_joining(run_node, tiny, empty):
    streams = run_node("CoDiSplitLatent", model=tiny[0], samples=empty(**ALL, batch_size=2))
    assert equal([part["samples"] for part in streams[:4]], empty(**ALL, batch_size=2)["samples"].unbind())
    (joint,) = run_node("CoDiJoinLatents", latents={f"latent_{i}": part for i, part in enumerate(streams[:4], start=1)})
    assert equal(joint["samples"].unbind(), [part["samples"] for part in streams[:4]])


def test_an_absent_stream_blocks_what_needs_it(run_node, tiny, empty):
    from comfy_execution.graph_utils import ExecutionBlocker

    image, video, audio, text, *_ = run_node("CoDiSplitLatent", model=tiny[0], samples=empty())
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
    parts = {f"latent_{i}": {"samples": z} for i, z in enumerate(streams.values(), start=1)}
    (latent,) = run_node("CoDiJoinLatents", latents=parts)
    (latent,) = run_node("CoDiHoldStreams", model=tiny[0], samples=latent, **{name: name == held for name in ALL})
    for name, result in zip(ALL, sample(latent, steps=3, sampler=sampler), strict=True):
        if name == held:
            assert torch.equal(result, streams[held])
        else:
            assert result.std() > 0.1


FOREIGN = [torch.full(shape, float(i)) for i, shape in enumerate([(2, 16, 8, 8), (2, 64, 20), (2, 4, 6, 6)])]


def parts_of(*streams):
    return {f"latent_{i}": {"samples": z} for i, z in enumerate(streams, start=1)}


def test_latents_of_any_models_are_joined_in_their_order(run_node):
    """Of images, sounds of one axis and images that look like CoDi's; two of one kind as well."""
    (joint,) = run_node("CoDiJoinLatents", latents=parts_of(*FOREIGN))
    assert equal(joint["samples"].unbind(), FOREIGN) and "noise_mask" not in joint
    image = FOREIGN[2]
    (joint,) = run_node("CoDiJoinLatents", latents=parts_of(image + 1, image))
    assert equal(joint["samples"].unbind(), [image + 1, image])
    (more,) = run_node("CoDiJoinLatents", latents={"latent_1": {"samples": FOREIGN[1]}, "latent_2": joint})
    assert equal(more["samples"].unbind(), [FOREIGN[1], image + 1, image])


def test_the_order_of_the_sockets_can_be_kept(run_node, empty):
    image, audio = empty(audio=False)["samples"], empty(image=False)["samples"]
    for keep_order, streams in ((False, [image, audio]), (True, [audio, image])):
        (joint,) = run_node("CoDiJoinLatents", latents=parts_of(audio, image), keep_order=keep_order)
        assert equal(joint["samples"].unbind(), streams)
    # The numbers of sockets count, not the order in which a prompt lists them.
    given = {"latent_3": {"samples": image}, "latent_1": {"samples": audio}}
    assert equal(run_node("CoDiJoinLatents", latents=given, keep_order=True)[0]["samples"].unbind(), [audio, image])


def test_latents_without_extent_cannot_be_joined(run_node):
    with pytest.raises(ValueError, match=r"^latents: a latent of shape \[2, 16\] has no extent; connect"):
        run_node("CoDiJoinLatents", latents=parts_of(FOREIGN[0], torch.zeros(2, 16)))


def test_splitting_by_number(run_node, empty, tiny):
    from comfy_execution.graph_utils import ExecutionBlocker

    mask = torch.rand(2, 1, 20)
    parts = parts_of(*FOREIGN)
    parts["latent_2"]["noise_mask"] = mask
    (joint,) = run_node("CoDiJoinLatents", latents=parts)
    outputs = run_node("CoDiSplitLatent", samples=joint)
    assert equal([part["samples"] for part in outputs[4:7]], FOREIGN)
    assert torch.equal(outputs[5]["noise_mask"], mask) and outputs[4]["noise_mask"].all()
    for blocked, sentence in [(outputs[0], "model: none is connected"), (outputs[7], "samples: there is no stream 4 ")]:
        assert isinstance(blocked, ExecutionBlocker) and blocked.message.startswith(sentence)
    outputs = run_node("CoDiSplitLatent", samples=empty(), model=tiny[0])
    assert outputs[0]["samples"] is outputs[4]["samples"] and outputs[2]["samples"] is outputs[5]["samples"]


def test_holding_by_number(run_node, empty, tiny):
    off = dict.fromkeys(ALL, False)
    (joint,) = run_node("CoDiJoinLatents", latents=parts_of(*FOREIGN))
    for streams, means in (("2", [1, 0, 1]), ("1, 3", [0, 1, 0]), (" 3 1,", [0, 1, 0])):
        (held,) = run_node("CoDiHoldStreams", samples=joint, streams=streams, **off)
        assert [float(mask.mean()) for mask in held["noise_mask"].unbind()] == means
        assert [mask.shape[2:] for mask in held["noise_mask"].unbind()] == [z.shape[2:] for z in FOREIGN]
    (same,) = run_node("CoDiHoldStreams", samples=joint, **off)
    assert "noise_mask" not in same
    (both,) = run_node(
        "CoDiHoldStreams", samples=empty(**ALL), model=tiny[0], streams="4", **off | {"video": True}
    )  # fmt: skip
    assert [float(mask.mean()) for mask in both["noise_mask"].unbind()] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"streams": "1, x"}, "streams: 'x' is neither a number nor the name of a stream; this latent has 1 "),
        ({"streams": "-1"}, "streams: '-1' is neither a number nor the name"),
        ({"streams": "0"}, "streams: there is no stream 0 in this latent, which has 1 \\(image\\)"),
        ({"streams": "4"}, "streams: there is no stream 4 in this latent, which has 1 \\(image\\)"),
        ({"streams": "1, 2, 3"}, "streams: every stream is held; leave one to generate"),
        ({"image": True}, "image: no model tells which stream is image; connect"),
    ],
)
def test_streams_that_cannot_be_held(run_node, given, sentence):
    (joint,) = run_node("CoDiJoinLatents", latents=parts_of(*FOREIGN))
    with pytest.raises(ValueError, match=f"^{sentence}"):
        run_node("CoDiHoldStreams", samples=joint, **dict.fromkeys(ALL, False) | given)


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
