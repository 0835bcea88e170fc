"""A mistake gets a message with the name of the input and the remedy."""

from fractions import Fraction

import pytest
import torch
from host.comfy_host import ExecutionFailed
from host.tiny_checkpoint import save_tiny, tiny_config

NONE = {"image": False, "video": False, "audio": False, "text": False}
LOADER = {"checkpoint": "tiny.safetensors", "image_and_video": True, "audio": True, "text": True}
SAMPLER = {"seed": 0, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}


@pytest.fixture
def bare(host, run_node):
    """What the loader gives for a checkpoint of the audio network alone."""
    name = "bare.safetensors"
    kept = ("diffuser.audio", "prompt_encoders.text")
    backend = host.module("codi_backend")
    without = tuple(part for part in backend.checkpoints.parts.part_names(tiny_config(backend)) if part not in kept)
    save_tiny(host.models / name, without=without)
    return run_node("CoDiLoadModel", checkpoint=name)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"width": 72}, "width: 72 pixels .* multiple of 16"),
        ({"height": 8192}, "height: 8192 is out of range; choose a whole number from 0 to 4096"),
        ({"image": False, "video": True, "width": 72}, "width: 72 pixels"),
        ({"video": True, "frames": 4097}, "frames: 4097 is out of range; choose a whole number from 0 to 4096"),
        ({"video": True, "frames": -1}, "frames: -1 is out of range"),
        ({"seconds": -1.0}, "seconds: -1 is out of range"),
        (NONE, "image, video, audio, text: nothing is left"),
    ],
)
def test_bad_latents(empty, inputs, message):
    with pytest.raises(ValueError, match=message):
        empty(**inputs)


@pytest.mark.parametrize("stream", ["image", "video", "text"])
def test_a_model_without_the_network(run_node, bare, prompts, stream):
    given = NONE | {stream: True} | {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 1}
    with pytest.raises(ValueError, match=f"model: 'tiny' does not generate {stream}"):
        run_node("CoDiEmptyLatent", model=bare[0], **given)
    size = {"image": {"width": 0, "height": 0}, "video": {"width": 0, "height": 0, "frames": 0}, "text": {}}[stream]
    with pytest.raises(ValueError, match=f"model: 'tiny' does not generate {stream}"):
        positive, negative = prompts
        run_node(
            f"CoDiSample{stream.capitalize()}",
            model=bare[0],
            positive=positive,
            negative=negative,
            batch_size=1,
            **size,
            **SAMPLER,
        )


def test_latent_without_the_stream(run_node, tiny, empty):
    with pytest.raises(ValueError, match="samples: there is no audio stream"):
        run_node("CoDiDecodeAudio", samples=empty(audio=False), audio_vae=tiny[3])
    with pytest.raises(ValueError, match="samples: there is no image stream"):
        run_node("CoDiDecodeImage", samples=empty(image=False), vae=tiny[2])
    with pytest.raises(ValueError, match="text: there is no text stream to hold"):
        run_node("CoDiHoldStreams", model=tiny[0], samples=empty(), **NONE | {"text": True})


def test_nothing_left_to_generate(run_node, tiny, empty):
    with pytest.raises(ValueError, match="image, audio: every stream is held; leave one"):
        run_node("CoDiHoldStreams", model=tiny[0], samples=empty(), **NONE | {"image": True, "audio": True})


def test_latent_with_nan(run_node, tiny, empty, sample):
    broken = {"samples": torch.full((1, 4, 8, 8), torch.nan)}
    sentence = "the image latent holds values that are not finite"
    with pytest.raises(ValueError, match=f"samples: {sentence}"):
        run_node("CoDiDecodeImage", samples=broken, vae=tiny[2])
    with pytest.raises(ValueError, match=f"latents: {sentence}"):
        run_node("CoDiJoinLatents", latents={"latent_1": broken, "latent_2": empty(image=False)})
    with pytest.raises(ValueError, match=f"latent_image: {sentence}"):
        sample(broken)


def test_latents_that_cannot_be_joined(run_node, empty):
    def join(*latents):
        run_node("CoDiJoinLatents", latents={f"latent_{i}": latent for i, latent in enumerate(latents, start=1)})

    with pytest.raises(
        ValueError, match=r"latents: the batch sizes differ \(image 2, audio 3\); .* Repeat Latent Batch"
    ):
        join(empty(audio=False, batch_size=2), empty(image=False, batch_size=3))
    with pytest.raises(ValueError, match=r"latents: the batch sizes differ \(1 2, audio 3\)"):
        join({"samples": torch.zeros(2, 64, 1024)}, empty(image=False, batch_size=3))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 8, 8), r"latent_image: a latent of shape \[1, 16, 8, 8\]"),
        ((1, 4, 9, 8), "latent_image: the image latent is 9 x 8, .* width and height multiples of 16 pixels"),
        ((1, 8, 17, 8), "latent_image: the audio latent is 17 x 8, .* multiple of 0.16 seconds"),
        ((1, 4, 121, 8, 8), "latent_image: the video latent has 121 frames; give it 1 to 120"),
    ],
)
def test_latent_of_another_model(sample, shape, message):
    with pytest.raises(ValueError, match=message):
        sample({"samples": torch.ones(shape)})


def test_streams_of_different_batch_sizes(host, run_node, sample, tiny, prompts):
    latent = {
        "samples": host.module("nodes.runtime.latent_packing").join([torch.zeros(2, 4, 8, 8), torch.zeros(1, 8, 32, 8)])
    }
    (guider,) = run_node(
        "CoDiGuider",
        model=tiny[0],
        positive=prompts[0],
        negative=prompts[1],
        **{f"cfg_{name}": 1.0 for name in NONE},
    )
    (noise,), (sampler,) = run_node("RandomNoise", noise_seed=0), run_node("KSamplerSelect", sampler_name="euler")
    with pytest.raises(ValueError, match=r"latent_image: the batch sizes of the streams differ \(image 2, audio 1\)"):
        run_node(
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=sampler,
            sigmas=torch.tensor([1.0, 0.0]),
            latent_image=latent,
        )


def test_prompts_that_do_not_fit(sample, empty, prompts):
    strange = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="positive: the model 'tiny' takes prompts of width 64 but got .* 768"):
        sample(empty(), conditioning=(strange, prompts[1]))
    with pytest.raises(ValueError, match="negative: .* width 64 but got nothing"):
        sample(empty(), conditioning=(prompts[0], [[None, {}]]))
    with pytest.raises(ValueError, match="positive: 3 prompts do not go with 2 results"):
        sample(empty(batch_size=2), conditioning=([[prompts[0][0][0].expand(3, -1, -1), {}]], prompts[1]))


@pytest.mark.parametrize("joint", [True, False])
def test_prompts_for_a_region(host, sample, empty, prompts, joint):
    positive, negative = prompts
    (area,) = host.node("ConditioningSetArea")().append(positive, 32, 32, 0, 0, 1.0)
    (masked,) = host.node("ConditioningSetMask")().append(positive, torch.ones(1, 64, 64), "default", 1.0)
    for regional in (area, masked):
        if not joint:  # where it works as it does with any other model
            (image,) = sample(empty(audio=False), steps=1, conditioning=(positive + regional, negative))
            assert image.isfinite().all()
            continue
        with pytest.raises(ValueError, match="negative: a prompt for an area .* not for image, audio; remove"):
            sample(empty(), conditioning=(positive, regional))


@pytest.mark.parametrize(("key", "name"), [("control", "ControlNet"), ("gligen", "GLIGEN")])
def test_conditioning_of_other_models(tiny, host, empty, prompts, key, name):
    run = host.module("nodes.runtime.sample_wrapper")
    cond = {"cross_attn": prompts[0][0][0], key: object()}
    with pytest.raises(ValueError, match=f"positive: .*{name} does not work with CoDi"):
        run.check_prompts("positive", [cond], ["image"], 1, tiny[0].model.codi_config)


def test_another_model(run_node, empty, prompts):
    class Other:
        model = torch.nn.Identity()

    positive, negative = prompts
    for node, inputs in {
        "CoDiEmptyLatent": NONE | {"width": 0, "height": 0, "frames": 0, "seconds": 0, "batch_size": 1},
        "CoDiSplitLatent": {"samples": empty()},
        "CoDiHoldStreams": {"samples": empty(), **NONE},
        "CoDiPickBest": {"samples": empty()},
        "CoDiGuider": {"positive": positive, "negative": negative, **{f"cfg_{name}": 1.0 for name in NONE}},
        "CoDiSampleText": {"positive": positive, "negative": negative, "batch_size": 1, **SAMPLER},
    }.items():
        with pytest.raises(ValueError, match="model: this is not a CoDi model"):
            run_node(node, model=Other(), **inputs)


def test_contents_that_cannot_be_encoded(run_node, tiny, bare):
    from comfy_api.latest import InputImpl, Types

    def image(height, width, vae=tiny[2]):
        run_node("CoDiEncodeImage", image=torch.zeros(1, height, width, 3), vae=vae)

    def video(images, **given):
        settings = {"frame_rate": 0.0, "frames": 0} | given
        run_node("CoDiEncodeVideo", video=images, vae=tiny[2], **settings)

    def audio(waveform, rate=16000, audio_vae=tiny[3]):
        given = None if waveform is None else {"waveform": waveform, "sample_rate": rate}
        run_node("CoDiEncodeAudio", audio=given, audio_vae=audio_vae, seconds=0.0)

    with pytest.raises(ValueError, match="image: 100 x 64 pixels do not fit .* multiples of 8; scale it to 96 x 64"):
        image(64, 100)
    with pytest.raises(ValueError, match="vae: the loaded checkpoint has no image autoencoder"):
        image(64, 64, vae=bare[2])
    with pytest.raises(ValueError, match="video: 64 x 70 pixels do not fit"):
        video(torch.zeros(3, 70, 64, 3))
    with pytest.raises(ValueError, match="video: this video has no frames"):
        video(torch.zeros(0, 64, 64, 3))
    no_frames = Types.VideoComponents(images=torch.zeros(0, 64, 64, 3), frame_rate=Fraction(25))
    with pytest.raises(ValueError, match="video: this video has no frames"):
        video(InputImpl.VideoFromComponents(no_frames))
    with pytest.raises(ValueError, match="video: this holds values that are not finite"):
        video(torch.full((3, 64, 64, 3), torch.nan))
    with pytest.raises(ValueError, match="audio: this is empty"):
        audio(torch.zeros(1, 2, 0))
    with pytest.raises(ValueError, match="audio: there is no audio in this"):
        audio(None)
    with pytest.raises(ValueError, match="audio: this holds values that are not finite"):
        audio(torch.full((1, 1, 1000), torch.inf))
    with pytest.raises(ValueError, match="audio_vae: the loaded checkpoint has no audio autoencoder"):
        audio(torch.ones(1, 1, 1000), audio_vae=bare[3])
    with pytest.raises(ValueError, match="text_vae: the loaded checkpoint has no text autoencoder"):
        run_node("CoDiEncodeText", text=["a"], text_vae=[bare[4]])


def test_checkpoint_without_decoders(run_node, bare, empty):
    with pytest.raises(ValueError, match="vae: the loaded checkpoint has no image autoencoder"):
        run_node("CoDiDecodeImage", samples=empty(), vae=bare[2])
    with pytest.raises(ValueError, match="audio_vae: the loaded checkpoint has no audio autoencoder"):
        run_node("CoDiDecodeAudio", samples=empty(), audio_vae=bare[3])


def test_wrong_file(host, run_node):
    (host.models / "notes.safetensors").write_text("not a checkpoint at all")
    with pytest.raises(ValueError, match=r"notes\.safetensors"):
        run_node("CoDiLoadModel", checkpoint="notes.safetensors")


def test_the_sentence_reaches_the_user_and_the_queue_goes_on(host):
    def prompt(width):
        latent = NONE | {"model": ["1", 0], "image": True, "width": width, "height": 0}
        return {
            "1": {"class_type": "CoDiLoadModel", "inputs": LOADER},
            "2": {
                "class_type": "CoDiEmptyLatent",
                "inputs": latent | {"frames": 0, "seconds": 0, "batch_size": 1},
            },
            "3": {"class_type": "CoDiDecodeImage", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
            "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
        }

    with pytest.raises(ExecutionFailed, match="width: 72 pixels"):
        host.run(prompt(72))
    assert host.run(prompt(32))["4"]["images"]


def test_an_absent_stream_is_reported(host):
    """A stream that a latent lacks stops what needs it, with a sentence; the other streams are shown."""
    latent = NONE | {"model": ["1", 0], "image": True, "width": 32, "height": 32}
    sent = []
    host._server.send_sync = lambda event, data, sid=None: sent.append((event, data))
    try:
        outputs = host.run(
            {
                "1": {"class_type": "CoDiLoadModel", "inputs": LOADER},
                "2": {
                    "class_type": "CoDiEmptyLatent",
                    "inputs": latent | {"frames": 0, "seconds": 0, "batch_size": 1},
                },
                "3": {"class_type": "CoDiSplitLatent", "inputs": {"model": ["1", 0], "samples": ["2", 0]}},
                "4": {"class_type": "CoDiDecodeImage", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
                "5": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
                "6": {"class_type": "CoDiDecodeImage", "inputs": {"samples": ["3", 1], "vae": ["1", 2]}},
                "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
            }
        )
    finally:
        del host._server.send_sync
    assert outputs["5"]["images"] and "7" not in outputs
    assert any("there is no video stream" in str(data) for event, data in sent if event == "execution_error")
