"""Decoding videos, with audio, and texts; and what the stock nodes make of the results."""

import pytest
import torch

pytestmark = pytest.mark.audio

RATE = 16000


def latent(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def decode_video(run_node, tiny):
    def call(batch=2, frame_rate=0.0, vae=tiny[2], **more):
        samples = {"samples": latent(batch, 4, 3, 8, 8)}
        return run_node("CoDiDecodeVideo", samples=samples, vae=vae, frame_rate=frame_rate, **more)

    return call


def make_audio(batch=2, channels=1, seconds=0.5):
    return {"waveform": latent(batch, channels, int(seconds * RATE)).clamp(-1, 1), "sample_rate": RATE}


def test_video_is_a_list_of_videos(decode_video, run_node, tiny):
    videos, frames = decode_video()
    assert len(videos) == len(frames) == 2 and not torch.allclose(frames[0], frames[1])
    for video, images_of_one, streams in zip(videos, frames, latent(2, 4, 3, 8, 8)):
        components = video.get_components()
        assert images_of_one.shape == (3, 64, 64, 3) and torch.equal(components.images, images_of_one)
        assert components.frame_rate == 6.25 and components.audio is None
        # Frames are images to the VAE.
        (images,) = run_node("CoDiDecodeImage", samples={"samples": streams.movedim(1, 0)}, vae=tiny[2])
        torch.testing.assert_close(images_of_one, images)


def test_frame_rate_of_ones_own(decode_video):
    assert [v.get_components().frame_rate for v in decode_video(frame_rate=12.5)[0]] == [12.5, 12.5]


def test_each_video_has_its_audio(decode_video):
    audio = make_audio()
    for video, expected in zip(decode_video(audio=audio)[0], audio["waveform"]):
        track = video.get_components().audio
        assert track["sample_rate"] == RATE and torch.equal(track["waveform"], expected[None])
    one = make_audio(batch=1, channels=2)
    for video in decode_video(audio=one)[0]:
        assert torch.equal(video.get_components().audio["waveform"], one["waveform"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"audio": make_audio(batch=3)}, "^audio: a batch of 3 does not match 2 videos"),
        ({"audio": make_audio(seconds=0)}, "^audio: this is empty"),
        ({"audio": {"waveform": torch.full((1, 1, 9), torch.nan), "sample_rate": RATE}}, "^audio: .* not finite"),
        ({"frame_rate": float("nan")}, "^frame_rate: nan is out of range"),
        ({"frame_rate": 0.001}, "^frame_rate: 0.001 is out of range"),
        ({"vae": None}, "^vae: the loaded checkpoint has no image autoencoder"),
    ],
)
def test_bad_input_of_a_video(decode_video, given, message):
    with pytest.raises(ValueError, match=message):
        decode_video(**given)


def test_a_vae_that_knows_no_frame_rate(decode_video):
    class Vae:
        latent_channels = 4

    with pytest.raises(ValueError, match="^frame_rate: this VAE has no frame rate"):
        decode_video(vae=Vae())


def test_text_is_a_list_of_strings(run_node, tiny, host):
    samples = {"samples": latent(3, 24, 1, 1)}
    (texts,) = run_node("CoDiDecodeText", samples=samples, text_vae=tiny[4])
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
    joint = host.module("nodes.runtime.latent_packing").join([latent(3, 4, 8, 8), samples["samples"]])
    assert run_node("CoDiDecodeText", samples={"samples": joint}, text_vae=tiny[4]) == (texts,)
    with pytest.raises(ValueError, match="^text_vae: the loaded checkpoint has no text autoencoder"):
        run_node("CoDiDecodeText", samples=samples, text_vae=None)
    with pytest.raises(ValueError, match="^samples: there is no text stream"):
        run_node("CoDiDecodeText", samples={"samples": latent(1, 4, 8, 8)}, text_vae=tiny[4])


def test_stock_nodes_show_and_save_everything(host):
    import av  # comes with ComfyUI

    streams = {"image": False, "video": True, "audio": True, "text": True}
    size = {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 2}
    sampling = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}

    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    outputs = host.run(
        {
            "load": node("CoDiLoadModel", checkpoint="tiny.safetensors", image_and_video=True, audio=True, text=True),
            "prompt": node("CoDiPromptText", prompt_encoders=["load", 1], text="two stars"),
            "empty": node("CoDiEmptyLatent", model=["load", 0], **streams, **size),
            "sample": node(
                "KSampler",
                model=["load", 0],
                positive=["prompt", 0],
                negative=["prompt", 1],
                latent_image=["empty", 0],
                **sampling,
            ),
            "audio": node("CoDiDecodeAudio", samples=["sample", 0], audio_vae=["load", 3]),
            "video": node(
                "CoDiDecodeVideo", samples=["sample", 0], vae=["load", 2], frame_rate=0.0, audio=["audio", 0]
            ),
            "text": node("CoDiDecodeText", samples=["sample", 0], text_vae=["load", 4]),
            "similarity": node(
                "CoDiSimilarity",
                prompt_encoders=["load", 1],
                **{"prompts.prompt_1": ["prompt", 0]},
                video=["video", 0],
                audio=["audio", 0],
                text=["text", 0],
            ),
            "save": node("SaveVideo", video=["video", 0], filename_prefix="video", format="auto", codec="auto"),
            "save audio": node("SaveAudio", audio=["audio", 0], filename_prefix="audio"),
            "show frames": node("PreviewImage", images=["video", 1]),
            "show text": node("PreviewAny", source=["text", 0]),
            "show matrix": node("PreviewImage", images=["similarity", 0]),
            "show table": node("PreviewAny", source=["similarity", 1]),
        }
    )
    assert len(outputs["show frames"]["images"]) == 2 * 4 and len(outputs["show text"]["text"]) == 2
    assert len(outputs["save audio"]["audio"]) == 2
    assert len(outputs["show matrix"]["images"]) == 1 and "prompt 1" in outputs["show table"]["text"][0]
    assert len(outputs["save"]["images"]) == 2
    for file in outputs["save"]["images"]:
        with av.open(str(host.output / file["subfolder"] / file["filename"])) as container:
            (video,), (audio,) = container.streams.video, container.streams.audio
            assert video.average_rate == 6.25 and video.width == video.height == 64 and audio.rate == RATE
            length = sum(frame.samples for frame in container.decode(audio)) / RATE
        assert length == pytest.approx(4 / 6.25, abs=0.1), "the audio of 2.56 s ends with the video"
