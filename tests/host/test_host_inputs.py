"""What nodes make of IMAGE, MASK, AUDIO, LATENT and numbers as other packs give them."""

from collections.abc import Mapping
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

NAN = float("nan")
TONE = 0.5 * torch.sin(torch.arange(8000) * 0.2)


class Lazy(Mapping):
    """As VideoHelperSuite's: no dict, and read when it is asked for."""

    def __init__(self, **content):
        self.content = content

    def __getitem__(self, key):
        if isinstance(self.content[key], Exception):
            raise self.content[key]
        return self.content[key]

    def __iter__(self):
        return iter(self.content)

    def __len__(self):
        return len(self.content)


@pytest.fixture(scope="module")
def inputs(host):
    return host.module("nodes.runtime.media_inputs")


FORMS = {
    "lazy": Lazy(waveform=TONE[None, None], sample_rate=16000),
    "without a batch": {"waveform": TONE[None], "sample_rate": 16000},
    "without channels": {"waveform": TONE, "sample_rate": 16000},
    "16-bit PCM": {"waveform": (TONE * 32768).round().to(torch.int16)[None, None], "sample_rate": 16000},
    "32-bit PCM": {"waveform": (TONE.double() * 2**31).round().to(torch.int32)[None], "sample_rate": 16000},
    "double": {"waveform": TONE.double()[None, None], "sample_rate": 16000.0},
    "NumPy": {"waveform": TONE.numpy()[None, None], "sample_rate": np.int64(16000)},
    "rate in a tensor": {"waveform": TONE[None, None], "sample_rate": torch.tensor(16000)},
}


@pytest.mark.parametrize("form", FORMS)
def test_audio_of_every_form(inputs, form):
    samples, rate = inputs.audio_samples(FORMS[form])
    assert type(rate) is int and rate == 16000 and samples.dtype == torch.float32
    torch.testing.assert_close(samples, TONE[None, None], atol=2e-5, rtol=0)


def test_every_node_takes_audio_of_other_packs(run_node, tiny):
    plain, lazy = {"waveform": TONE[None, None], "sample_rate": 16000}, FORMS["lazy"]

    def results(audio):
        prompt = run_node("CoDiPromptAudio", prompt_encoders=tiny[1], audio=audio)[0][0][0]
        latent = run_node("CoDiEncodeAudio", audio=audio, audio_vae=tiny[3], seconds=0.5)[0]["samples"]
        encoders = {"prompt_encoders": [tiny[1]], "text": ["a star"]}
        matrix = run_node("CoDiSimilarity", audio=[audio], **encoders)[0]
        samples = {"samples": torch.zeros(1, 4, 2, 4, 4)}
        (components,), _ = run_node("CoDiDecodeVideo", samples=samples, vae=tiny[2], frame_rate=6.0, audio=audio)
        track = components.get_components().audio
        assert track["sample_rate"] == 16000
        return prompt, latent, matrix, track["waveform"]

    for one, other in zip(results(plain), results(lazy), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        (None, "^audio: there is no audio in this, as in a video without any; connect one that has.$"),
        ("cat.wav", "^audio: this is a str; connect audio.$"),
        ({"sample_rate": 8000}, "^audio: there is no waveform in this; connect audio from a node"),
        ({"waveform": TONE}, "^audio: there is no sample_rate in this; connect"),
        ({"waveform": None, "sample_rate": 8000}, "^audio: there is no waveform"),
        (
            Lazy(waveform=OSError("cat.mp4: No such file\nffmpeg"), sample_rate=8000),
            r"^audio: this cannot be read \(cat.mp4: No such file\); look at its file.$",
        ),
        ({"waveform": [0.0], "sample_rate": 8000}, "^audio: this is a list: give a tensor"),
        ({"waveform": TONE.long(), "sample_rate": 8000}, "^audio: this is of type int64"),
        ({"waveform": TONE.reshape(1, 1, 2, -1), "sample_rate": 8000}, "^audio: its waveform is of shape .*connect"),
        ({"waveform": TONE * 32768, "sample_rate": 8000}, r"^audio: this holds values up to 1.64e\+04, .*divide those"),
        ({"waveform": TONE, "sample_rate": NAN}, "^audio: sample_rate: nan is out of range"),
        ({"waveform": TONE, "sample_rate": "8 kHz"}, "^audio: sample_rate: '8 kHz' is out of range"),
    ],
)
def test_what_is_no_audio(inputs, audio, sentence):
    with pytest.raises(ValueError, match=sentence):
        inputs.audio_samples(audio)


def test_images_of_every_form(inputs):
    colour = torch.rand(2, 4, 5, 3)
    assert torch.equal(inputs.image_pixels(colour, "image"), colour.movedim(-1, 1))
    grey = colour[..., :1]
    assert torch.equal(inputs.image_pixels(grey, "image"), grey.expand(2, 4, 5, 3).movedim(-1, 1))
    alpha = torch.rand(2, 4, 5, 1)
    flat = inputs.image_pixels(torch.cat([colour, alpha], -1), "image")
    torch.testing.assert_close(flat, (colour * alpha + 1 - alpha).movedim(-1, 1))
    eight = (colour * 255).round().to(torch.uint8)
    torch.testing.assert_close(inputs.image_pixels(eight, "image"), eight.float().movedim(-1, 1) / 255)


def test_masks_of_every_form(inputs):
    mask = (torch.rand(2, 4, 5) > 0.5).float()
    for form in (mask, mask.bool(), mask[:, None], mask.long(), (mask * 255).to(torch.uint8)):
        assert torch.equal(inputs.mask_values(form, "mask"), mask)
    assert torch.equal(inputs.mask_values(mask[0], "mask"), mask[:1])


@pytest.mark.parametrize(
    ("read", "value", "sentence"),
    [
        ("image_pixels", None, "^image: nothing is connected; connect an image"),
        ("image_pixels", torch.full((1, 4, 4, 3), 255.0), "^image: this holds values from 255 to 255, .*divide 0..255"),
        ("image_pixels", torch.zeros(4, 4, 3), "^image: this is of shape .*; connect images"),
        ("mask_values", None, "^image: nothing is connected; connect a mask"),
        ("mask_values", torch.full((4, 4), 255.0), "^image: this holds values from 255 to 255"),
        ("mask_values", torch.zeros(1, 2, 4, 4), "^image: this is of shape .*; connect a mask"),
        ("video_pixels", None, "^image: nothing is connected; connect a video"),
        ("video_pixels", "a.mp4", "^image: this is a str; connect a video"),
    ],
)
def test_what_is_no_image_mask_or_video(inputs, read, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        getattr(inputs, read)(value, "image")


def test_videos_that_cannot_be_read(run_node, tiny):
    def gone():
        raise OSError("a.mp4 is gone.")

    def encode(video):
        run_node("CoDiEncodeVideo", video=video, vae=tiny[2], frame_rate=0.0, frames=0)

    with pytest.raises(ValueError, match=r"^video: this video cannot be read \(a.mp4 is gone\); look at its file.$"):
        encode(SimpleNamespace(get_components=gone))
    still = SimpleNamespace(images=torch.rand(2, 32, 32, 3), frame_rate=Fraction(0))
    with pytest.raises(ValueError, match="^video: its frame rate: 0 is out of range"):
        encode(SimpleNamespace(get_components=lambda: still))


@pytest.mark.parametrize("latent", [None, {}, {"samples": None}, {"samples": [1.0]}, torch.zeros(1, 4, 4, 4)])
def test_latents_that_hold_nothing(run_node, tiny, prompts, latent):
    held = {"image": True, "video": False, "audio": False, "text": False}
    nodes = {
        "CoDiDecodeImage": {"samples": latent, "vae": tiny[2]},
        "CoDiDecodeVideo": {"samples": latent, "vae": tiny[2], "frame_rate": 0.0},
        "CoDiDecodeAudio": {"samples": latent, "audio_vae": tiny[3]},
        "CoDiDecodeText": {"samples": latent, "text_vae": tiny[4]},
        "CoDiSplitLatent": {"samples": latent, "model": tiny[0]},
        "CoDiHoldStreams": {"samples": latent, "model": tiny[0]} | held,
        "CoDiPickBest": {"samples": latent, "model": tiny[0]},
    }
    for name, given_inputs in nodes.items():
        with pytest.raises(ValueError, match="^samples: there is no latent in this; connect"):
            run_node(name, **given_inputs)
    with pytest.raises(ValueError, match="^latents: there is no latent in this; connect"):
        run_node("CoDiJoinLatents", latents={"latent_1": latent})


@pytest.mark.parametrize("value", [NAN, 1e30, -1e30, None, "much"])
def test_numbers_that_links_bring(run_node, tiny, prompts, value):
    """ComfyUI checks what is typed in, not what another node gives."""
    model, image = {"model": tiny[0]}, torch.rand(1, 16, 16, 3)
    guider = {"positive": prompts[0], "negative": prompts[1]} | {f"cfg_{n}": 1.0 for n in ("image", "video", "audio")}
    empty = {"image": True, "video": False, "audio": True, "text": False, "frames": 0, "seconds": 0.0, "batch_size": 1}
    calls = [
        ("strength", "CoDiAlignment", model | {"mode": "paper"}),
        ("alignment_scale", "CoDiAlignment", model | {"mode": "paper", "strength": 1.0}),
        ("strength", "CoDiAlignmentPair", model | {"listener": "image", "speaker": "audio"}),
        ("cfg_text", "CoDiGuider", model | guider),
        ("strength", "CoDiColourMatch", {"image": image, "reference": image, "method": "simple"}),
        ("seconds", "CoDiEmptyLatent", model | empty | {"width": 0, "height": 0}),
        ("batch_size", "CoDiEmptyLatent", model | empty | {"width": 0, "height": 0}),
        ("width", "CoDiEmptyLatent", model | empty | {"height": 0}),
    ]
    for name, node, more in calls:
        with pytest.raises(ValueError, match=f"^{name}: .* is out of range; choose a (whole )?number from"):
            run_node(node, **more | {name: value})
    with pytest.raises(ValueError, match="^weights: .* is out of range"):
        weights = {"weight_1": 1.0, "weight_2": "none" if value is None else value}
        both = {"prompt_1": prompts[0], "prompt_2": prompts[1]}
        run_node("CoDiInterpolate", prompts=both, weights=weights, method="linear")


@pytest.mark.parametrize("bad", [NAN, 1e30])
@pytest.mark.parametrize("what", ["noise", "sigmas", "mask", "prompt", "latent"])
def test_numbers_in_a_run(run_node, tiny, prompts, empty, what, bad):
    """Noise and noise levels too may come from other packs."""
    latent = empty(audio=False, width=32, height=32)
    if what == "mask":
        latent["noise_mask"] = torch.full((1, 32, 32), bad)
    if what == "latent":
        latent["samples"] = latent["samples"] + bad
    positive = [[torch.full_like(prompts[0][0][0], bad), {}]] if what == "prompt" else prompts[0]
    (noise,) = run_node("RandomNoise", noise_seed=0)
    if what == "noise":
        noise = SimpleNamespace(seed=0, generate_noise=lambda latent: torch.full_like(latent["samples"], bad))
    (sampler,) = run_node("KSamplerSelect", sampler_name="euler")
    sigmas = torch.tensor([10.0, NAN if what == "sigmas" else 1.0, 0.0])
    (guider,) = run_node("CFGGuider", model=tiny[0], positive=positive, negative=prompts[1], cfg=2.0)
    begins = {"mask": "latent_image: its noise mask", "latent": "latent_image: the image latent"}
    begins |= {"prompt": "positive: this prompt"}
    with pytest.raises(ValueError, match=f"^{begins.get(what, what + ': this')} holds values"):
        run_node(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
        )


DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int16,
    torch.int64,
    torch.bool,
)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4])),
    st.lists(st.integers(0, 5), max_size=6),
)


@pytest.mark.property
@pytest.mark.parametrize("kind", ["image", "mask", "video", "audio"])
@given(SHAPES, st.sampled_from(DTYPES), st.sampled_from([0.5, 1.1, NAN, float("inf"), 255.0, 6e4]), st.booleans())
def test_any_tensor_is_read_rightly_or_is_a_sentence(inputs, kind, shape, dtype, value, alone):
    values = torch.zeros(shape) if alone else torch.full(list(shape), value)
    if alone and values.numel():
        values.view(-1)[-1] = value
    if not dtype.is_floating_point:
        values = values.nan_to_num(0, 0, 0)
    values = values.to(dtype)
    read = {"image": inputs.image_pixels, "mask": inputs.mask_values, "video": inputs.video_pixels}
    try:
        if kind == "audio":
            result, _ = inputs.audio_samples({"waveform": values, "sample_rate": 100})
        else:
            result = read[kind](values, kind)
    except ValueError as error:
        assert str(error).startswith(f"{kind}: ") and str(error).endswith(".") and "\n" not in str(error), error
    else:
        most = 100 if kind == "audio" else 1.5
        assert result.dtype == torch.float32 and result.isfinite().all() and result.abs().max() <= most
        assert result.ndim == {"image": 4, "mask": 3, "video": 5, "audio": 3}[kind]
        assert kind not in ("image", "video") or result.shape[1] == 3
