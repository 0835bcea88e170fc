"""Prompts of all kinds, mixtures of them, and what stock nodes do with them."""

import json
from fractions import Fraction

import pytest
import torch
from host.comfy_host import ExecutionFailed


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def whole(host, tiny):
    """The tiny model as the backend loads it."""
    return host.module("codi_backend.pipeline").CoDi.load(host.models / "tiny.safetensors")


@pytest.fixture
def prompt(run_node, tiny):
    """Positive and unconditional embedding by a prompt node."""

    def call(kind, **content):
        positive, unconditional = run_node(f"CoDiPrompt{kind}", prompt_encoders=tiny[1], **content)
        assert len(positive) == len(unconditional) == 1 and positive[0][1] == unconditional[0][1] == {}
        return positive[0][0], unconditional[0][0]

    return call


def agrees(got, expected):
    for one, other in zip(got, (expected.embedding, expected.unconditional[:1]), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_images_of_any_size_in_batches(prompt, whole):
    for shape in ((1, 33, 97, 3), (3, 64, 20, 3), (20, 32, 32, 3)):
        image = noise(*shape)
        agrees(prompt("Image", image=image), whole.prompt("image", image.movedim(-1, 1)))


def test_transparency_is_white_and_grey_has_equal_channels(prompt):
    image, alpha = noise(2, 32, 32, 3), noise(2, 32, 32, 1, seed=1)
    flat = prompt("Image", image=image * alpha + 1 - alpha)[0]
    torch.testing.assert_close(prompt("Image", image=torch.cat([image, alpha], -1))[0], flat, atol=1e-2, rtol=0)
    clear = torch.cat([image, torch.zeros_like(alpha)], -1)
    assert torch.equal(prompt("Image", image=clear)[0], prompt("Image", image=torch.ones_like(image))[0])
    assert torch.equal(prompt("Image", image=alpha)[0], prompt("Image", image=alpha.expand(-1, -1, -1, 3))[0])


@pytest.mark.parametrize("native", [True, False])
def test_videos_and_images_that_are_their_frames(prompt, whole, native):
    from comfy_api.latest import InputImpl, Types

    frames = noise(5, 40, 60, 3)
    components = Types.VideoComponents(images=frames, frame_rate=Fraction(8))
    video = InputImpl.VideoFromComponents(components) if native else frames
    agrees(prompt("Video", video=video), whole.prompt("video", frames.movedim(-1, 0)[None]))


def test_of_a_long_video_some_frames_are_looked_at(prompt):
    frames = torch.ones(97, 8, 8, 3) * torch.linspace(0, 1, 97)[:, None, None, None]
    prepared_pixels = [(i + 1) * 97 // 32 - 1 for i in range(32)]
    thinned = prompt("Video", video=frames)
    assert all(torch.equal(a, b) for a, b in zip(thinned, prompt("Video", video=frames[prepared_pixels]), strict=True))


@pytest.mark.audio
@pytest.mark.parametrize("rate", [16000, 44100, 44099, 192000])
def test_audio_of_any_rate_in_stereo(prompt, whole, rate):
    waveform = noise(2, 2, rate // 3) - 0.5
    got = prompt("Audio", audio={"waveform": waveform, "sample_rate": rate})
    agrees(got, whole.prompt("audio", waveform.mean(1, keepdim=True), rate))


def test_inputs_stay_as_they_are(prompt):
    image, waveform = noise(2, 40, 30, 3), noise(1, 2, 9000)
    audio = {"waveform": waveform.clone(), "sample_rate": 16000}
    prompt("Image", image=image), prompt("Video", video=image), prompt("Audio", audio=audio)
    assert torch.equal(image, noise(2, 40, 30, 3)) and torch.equal(audio["waveform"], waveform)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("Image", {"image": torch.zeros(0, 8, 8, 3)}, "^image: there is no image in this"),
        ("Image", {"image": torch.full((1, 8, 8, 3), torch.nan)}, "^image: this holds values that are not finite"),
        ("Image", {"image": torch.zeros(1, 8, 8, 2)}, "^image: this is of shape .*; connect images"),
        ("Video", {"video": torch.zeros(0, 8, 8, 3)}, "^video: there is no image in this"),
        ("Video", {"video": torch.full((2, 8, 8, 3), torch.inf)}, "^video: this holds values that are not finite"),
        ("Audio", {"audio": None}, "^audio: there is no audio in this, as in a video without any"),
        ("Audio", {"audio": {"waveform": torch.zeros(1, 2, 0), "sample_rate": 44100}}, "^audio: this is empty"),
        ("Audio", {"audio": {"waveform": torch.zeros(1, 1, 159), "sample_rate": 16000}}, "^audio: this is empty"),
        ("Audio", {"audio": {"waveform": torch.zeros(0, 1, 999), "sample_rate": 16000}}, "^audio: this is empty"),
        ("Audio", {"audio": {"waveform": torch.zeros(1, 1, 999), "sample_rate": 0}}, "^audio: sample_rate: 0 is"),
        ("Audio", {"audio": {"waveform": torch.full((1, 1, 999), torch.nan), "sample_rate": 8000}}, "^audio: this hol"),
    ],
)
def test_contents_that_cannot_be_encoded(prompt, kind, content, message):
    with pytest.raises(ValueError, match=message):
        prompt(kind, **content)


def test_interruption_ends_the_encoding_of_a_batch(host, prompt):
    import comfy.model_management as mm

    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        prompt("Image", image=noise(2, 32, 32, 3))
    assert prompt("Image", image=noise(2, 32, 32, 3))[0].isfinite().all()


@pytest.fixture
def conditionings(run_node, tiny):
    """A text, an image and audio."""
    audio = {"waveform": noise(1, 1, 8000) - 0.5, "sample_rate": 16000}
    contents = {"Text": {"text": "a red star"}, "Image": {"image": noise(1, 32, 32, 3)}, "Audio": {"audio": audio}}
    return [run_node(f"CoDiPrompt{kind}", prompt_encoders=tiny[1], **content)[0] for kind, content in contents.items()]


@pytest.fixture(params=["CoDiInterpolatePrompts", "CoDiInterpolate"])
def mix(request, run_node):
    """The node with weights as widgets, and the one with sockets that saved graphs have."""

    def call(conditionings, weights=(), method="linear"):
        prompts = {f"prompt_{i}": conditioning for i, conditioning in enumerate(conditionings, start=1)}
        weights = {f"weight_{i}": weight for i, weight in enumerate(weights, start=1)}
        given = {"prompts": prompts, "weights": weights}
        if request.param == "CoDiInterpolatePrompts":
            given = {"prompts": {"prompts": str(len(prompts))} | prompts | weights}
        ((embedding, more),) = run_node(request.param, **given, method=method)[0]
        assert more == {}
        return embedding

    return call


def test_linear_mixtures(mix, conditionings):
    text, image, audio = (conditioning[0][0] for conditioning in conditionings)
    torch.testing.assert_close(mix(conditionings), (text + image + audio) / 3)
    torch.testing.assert_close(mix(conditionings, [3, 1, 0]), 0.75 * text + 0.25 * image)
    torch.testing.assert_close(mix(conditionings[:2], [None, 3.0]), 0.25 * text + 0.75 * image)
    assert torch.equal(mix(conditionings[:1]), text)


def test_spherical_mixtures_keep_their_length(mix, conditionings):
    text, image, _ = (conditioning[0][0] for conditioning in conditionings)
    half = mix(conditionings[:2], method="spherical")
    torch.testing.assert_close(half, torch.nn.functional.normalize(text + image, dim=-1))
    for weights in ([1, 2, 3], [0, 1, 1]):
        assert abs(mix(conditionings, weights, "spherical").norm() - 1) < 1e-5


def test_one_prompt_goes_with_a_batch(mix, run_node, tiny, conditionings):
    batch = run_node("CoDiPromptImage", prompt_encoders=tiny[1], image=noise(3, 32, 32, 3))[0]
    mixed = mix([conditionings[0], batch])
    torch.testing.assert_close(mixed, (conditionings[0][0][0] + batch[0][0]) / 2)
    pair = run_node("CoDiPromptImage", prompt_encoders=tiny[1], image=noise(2, 32, 32, 3))[0]
    with pytest.raises(ValueError, match=r"^prompts: their batches differ \(3 in prompt_1, 2 in prompt_3\)"):
        mix([batch, conditionings[0], pair])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0, 0, 0], "^weights: all are 0"),
        ([1, -1, 1], "^weights: -1 is out of range"),
        ([1, float("nan"), 1], "^weights: nan is out of range"),
        ([1, 1, 1, 0.5], "^weights: one is for prompt_4, which is not connected"),
    ],
)
def test_weights_that_cannot_be_used(mix, conditionings, weights, message):
    with pytest.raises(ValueError, match=message):
        mix(conditionings, weights)


def test_prompts_that_cannot_be_mixed(mix, conditionings):
    video = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(
        ValueError, match="^prompt_2: a prompt of 77 tokens of width 768 cannot be mixed with prompt_1 of"
    ):
        mix([conditionings[0], video])
    with pytest.raises(ValueError, match="^prompt_2: a prompt of width 32 cannot be mixed with prompt_1 of width 64"):
        mix([conditionings[0], [[torch.zeros(1, 1, 32), {}]]])
    with pytest.raises(ValueError, match="^prompt_1: this holds 2 prompts"):
        mix([conditionings[0] + conditionings[1]])
    with pytest.raises(ValueError, match="^prompts: there is nothing to mix"):
        mix([])


def graph(weights: dict, prompts: int = 3, kind: str = "CoDiInterpolatePrompts") -> dict:
    """A prompt in the form of the API: as many texts, weighted, mixed and saved."""
    texts = ("a red star", "two blue stars", "three stars")
    nodes = {"0": {"class_type": "CoDiLoadModel", "inputs": {"checkpoint": "tiny.safetensors"}}}
    nodes["0"]["inputs"] |= {"image_and_video": False, "audio": False, "text": True}
    inputs = {"method": "linear"}
    for number in range(1, prompts + 1):
        encoded = {"prompt_encoders": ["0", 1], "text": texts[number - 1]}
        nodes[f"{number}"] = {"class_type": "CoDiPromptText", "inputs": encoded}
        inputs[f"prompts.prompt_{number}"] = [f"{number}", 0]
    if kind == "CoDiInterpolatePrompts":
        inputs["prompts"] = f"{prompts}"
        inputs |= {f"prompts.weight_{number}": weights.get(number, 1.0) for number in range(1, prompts + 1)}
    else:
        for number, value in weights.items():
            nodes[f"w{number}"] = {"class_type": "PrimitiveFloat", "inputs": {"value": value}}
            inputs[f"weights.weight_{number}"] = [f"w{number}", 0]
    nodes["mix"] = {"class_type": kind, "inputs": inputs}
    save = {"conditioning": ["mix", 0], "filename_prefix": "codi_embeddings/mixed"}
    nodes["save"] = {"class_type": "CoDiSaveEmbedding", "inputs": save}
    return nodes


def saved(host, outputs: dict) -> torch.Tensor:
    from safetensors.torch import load_file

    (file,) = outputs["save"]["embeddings"]
    return load_file(host.output / file["subfolder"] / file["filename"])["embedding"]


@pytest.mark.parametrize("kind", ["CoDiInterpolatePrompts", "CoDiInterpolate"])
def test_mixing_in_a_graph(host, run_node, tiny, mix, kind):
    texts = ("a red star", "two blue stars", "three stars")
    one = [run_node("CoDiPromptText", prompt_encoders=tiny[1], text=text)[0] for text in texts]
    torch.testing.assert_close(saved(host, host.run(graph({1: 0.5, 3: 2.5}, kind=kind))), mix(one, [0.5, 1, 2.5]))
    torch.testing.assert_close(saved(host, host.run(graph({}, prompts=2, kind=kind))), mix(one[:2]))
    with pytest.raises(ExecutionFailed, match="^weights: all are 0"):
        host.run(graph({1: 0.0, 2: 0.0, 3: 0.0}, kind=kind))
    unfinished = graph({}, prompts=2, kind=kind)
    del unfinished["mix"]["inputs"]["prompts.prompt_2"]
    with pytest.raises(ValueError, match=r"prompts.prompt_2"):
        host.run(unfinished)


def test_the_browser_learns_which_widgets_a_number_of_prompts_has(server):
    inputs = server.get("/object_info/CoDiInterpolatePrompts")["CoDiInterpolatePrompts"]["input"]
    kind, details = inputs["required"]["prompts"]
    assert kind == "COMFY_DYNAMICCOMBO_V3"
    assert [option["key"] for option in details["options"]] == [str(number) for number in range(2, 17)]
    for option in details["options"]:
        names = [f"{name}_{i}" for i in range(1, int(option["key"]) + 1) for name in ("prompt", "weight")]
        assert list(option["inputs"]["required"]) == names
        assert not option["inputs"]["required"]["weight_2"][1].get("forceInput")


def test_the_browser_learns_how_the_sockets_grow(server):
    inputs = server.get("/object_info/CoDiInterpolate")["CoDiInterpolate"]["input"]
    for name, kind, least in (("prompts", "CONDITIONING", 2), ("weights", "FLOAT", 0)):
        grows, details = (inputs["required"] | inputs["optional"])[name]
        template = details["template"]
        assert grows == "COMFY_AUTOGROW_V3" and template["min"] == least
        assert template["names"][:2] == [f"{name[:-1]}_1", f"{name[:-1]}_2"]
        ((_, (found, _)),) = template["input"]["required"].items()
        assert found == kind, json.dumps(template)


def test_another_text_as_negative_prompt(run_node, sample, empty, tiny, prompts):
    negative = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="blue")[0]
    plain = sample(empty())
    against = sample(empty(), conditioning=(prompts[0], negative))
    assert not torch.allclose(plain[0], against[0]) and not torch.allclose(plain[1], against[1])
    # Without guidance a negative prompt has no effect.
    weak = sample(empty(), cfg=1.0), sample(empty(), cfg=1.0, conditioning=(prompts[0], negative))
    assert all(torch.equal(a, b) for a, b in zip(*weak, strict=True))


def test_a_prompt_can_be_limited_to_a_range_of_sigmas(host, run_node, sample, empty, tiny, prompts):
    other = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="blue")[0]

    def limited(conditioning, start, end):
        (result,) = host.node("ConditioningSetTimestepRange")().set_range(conditioning, start, end)
        return result

    def run(positive):
        return sample(empty(), conditioning=(positive, prompts[1]))

    first_half = run(limited(prompts[0], 0.0, 0.5) + limited(other, 0.5, 1.0))
    assert all(not torch.allclose(a, b) for a, b in zip(first_half, run(prompts[0]), strict=True))
    assert all(not torch.allclose(a, b) for a, b in zip(first_half, run(other), strict=True))
    everywhere = run(limited(prompts[0], 0.0, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(everywhere, run(prompts[0]), strict=True))
