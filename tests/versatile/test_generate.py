"""Generating from contexts: mixtures, guidance, fidelity (SPEC_VD sections 3 and 5)."""

import dataclasses

import pytest
import torch
from sample_options import sample
from tiny import VERSATILE, build, save

import codi_backend as cb
from codi_backend.cli.main import main
from codi_backend.conditioning.context import Context, MixedContext, concatenate, mix
from codi_backend.media.write import to_pil
from codi_backend.models.noise_schedule import add_noise, alphas_cumprod
from codi_backend.sampling.guidance import plan as guidance_plan
from codi_backend.sampling.noise import stream_noise
from codi_backend.sampling.samplers import SAMPLERS, make_scheduler

SMALL = {"image_size": 32, "steps": 2}


@pytest.fixture(scope="module")
def versatile():
    return build(VERSATILE)


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def text(versatile):
    return versatile.context("text", ["two red stars"])


@pytest.fixture(scope="module")
def image(versatile, pixels):
    return versatile.context("image", pixels)


def latents(versatile, contexts, output="image", **options):
    return versatile.generate_latents(contexts, [output], **{**SMALL, **options})[output]


def test_contexts(versatile, text, image):
    assert (text.kind, text.tokens.shape) == ("text", (1, 12, 32))
    assert (image.kind, image.tokens.shape) == ("image", (1, 65, 32))
    assert versatile.outputs == ("text", "image")
    assert cb.mix is mix and cb.concatenate is concatenate and cb.Context is Context


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_four_flows(versatile, text, image, kind):
    context = {"text": text, "image": image}[kind].expand(2)
    out = versatile.generate(context, ["text", "image"], guidance=3.0, seed=5, **SMALL)
    assert out["image"].shape == (2, 3, 32, 32) and 0 <= out["image"].min() and out["image"].max() <= 1
    assert len(out["text"]) == 2 and all(isinstance(t, str) for t in out["text"])
    alone = versatile.generate(context, ["image"], guidance=3.0, seed=5, **SMALL)
    assert torch.equal(alone["image"], out["image"])


@pytest.mark.parametrize("output", ["image", "text"])
def test_mixtures(versatile, text, image, output):
    """For texts, too: the original crashed."""
    ends = [latents(versatile, context, output) for context in (text, image)]
    for ratios, expected in (((3, 0), ends[0]), ((0, 1), ends[1])):
        mixed = mix([(text, ratios[0]), (image, ratios[1])])
        torch.testing.assert_close(latents(versatile, mixed, output), expected, atol=1e-4, rtol=1e-4)
    half = latents(versatile, mix([(text, 1), (image, 1)]), output)
    assert all((half - end).abs().max() > 1e-3 for end in ends)
    torch.testing.assert_close(latents(versatile, mix([(image, 4), (text, 4)]), output), half, atol=1e-3, rtol=1e-3)


def test_mixing_by_layer_is_drawn_from_the_seed(versatile, text, image):
    mixed = mix([(text, 1), (image, 1)], mixing="layer")
    first, again, other = (latents(versatile, mixed, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, latents(versatile, mix([(text, 1), (image, 1)]), seed=1))
    assert not torch.equal(first, other)
    only = mix([(text, 1), (image, 0)], mixing="layer")
    torch.testing.assert_close(latents(versatile, only), latents(versatile, text), atol=1e-4, rtol=1e-4)


class Recorder:
    """Records the contexts of a diffuser's calls."""

    def __init__(self, diffuser):
        self.diffuser, self.contexts = diffuser, []

    @property
    def num_shared_layers(self):
        return self.diffuser.num_shared_layers

    def __call__(self, latents, timesteps, context, **options):
        self.contexts.append((context, options.get("drawn")))
        return self.diffuser(latents, timesteps, context, **options)


def run(recorder, prompt, guidance, **options):
    noise = {"image": stream_noise((1, 4, 8, 8), 0, "image")}
    return sample(recorder, noise, prompt, steps=1, guidance=guidance, sampler="ddim", **options)["image"]


def test_every_prediction_of_a_step_has_the_same_draw(versatile, text, image):
    recorder = Recorder(versatile.diffuser)
    run(recorder, mix([(text, 1), (image, 1)], mixing="layer"), 3.0)
    (_, first), (_, second) = recorder.contexts
    assert first == second and set(first) == {0, 1}


def test_guidance_1_asks_for_the_contexts_alone(versatile, text, image):
    recorder = Recorder(versatile.diffuser)
    run(recorder, mix([(text, 1), (image, 3)]), 1.0)
    [(contexts, _)] = recorder.contexts
    assert [(kind, ratio) for kind, _, ratio in contexts] == [("text", 0.25), ("image", 0.75)]
    assert torch.equal(contexts[0][1], text.tokens) and torch.equal(contexts[1][1], image.tokens)


def test_guidance_for_each_context(versatile, text, image):
    """Equal scales are one scale; 0 for a context removes its influence; the last one's predictions build on it."""
    mixed = mix([(text, 1), (image, 1)])
    recorder = Recorder(versatile.diffuser)
    torch.testing.assert_close(run(recorder, mixed, [3.0, 3.0]), run(recorder, mixed, 3.0), atol=0, rtol=0)
    assert len(recorder.contexts) == 4
    blind = MixedContext((text, dataclasses.replace(image, tokens=image.unconditional)), mixed.ratios)
    torch.testing.assert_close(run(recorder, mixed, [3.0, 0.0]), run(recorder, blind, 3.0), atol=1e-4, rtol=1e-4)
    recorder.contexts.clear()
    run(recorder, mixed, [1.0, 4.0])
    assert len(recorder.contexts) == 2  # the unconditional prediction would cancel


@pytest.mark.parametrize(
    ("guidance", "contexts", "expected"),
    [
        (7.5, 1, ([0, 1], [7.5])),
        (1.0, 1, ([1], [])),
        (7.5, 3, ([0, 3], [7.5])),
        ([7.5, 7.5, 2.0], 3, ([0, 2, 3], [7.5, 2.0])),
        ([1.0, 1.0, 2.0], 3, ([2, 3], [2.0])),
        ([1, 1], 2, ([2], [])),
        ([2.0, 1.0], 2, ([0, 1, 2], [2.0, 1.0])),
    ],
)
def test_predictions_that_guidance_needs(guidance, contexts, expected):
    assert guidance_plan(guidance, contexts) == expected


def test_one_scale_by_the_ratios(text, image):
    assert mix([(text, 3), (image, 1)]).interpolate([8.0, 4.0]) == 7.0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fidelity_0_is_a_plain_run_and_1_the_start(versatile, text, sampler):
    start = {"image": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))}
    plain = latents(versatile, text, sampler=sampler)
    assert torch.equal(latents(versatile, text, sampler=sampler, start=start, fidelity=0.0), plain)
    assert torch.equal(latents(versatile, text, sampler=sampler, start=start, fidelity=1.0), start["image"])


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddim", "euler"])
def test_a_run_begins_at_the_level_of_its_first_step(versatile, text, sampler):
    """Where the original begins one step too noisy, and loses a step to rounding."""
    steps, fidelity = 50, 0.34
    scale = versatile.config.image_autoencoder.scale_factor
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = stream_noise((1, 4, 8, 8), 0, "image")
    seen = []

    def stop(latents, timesteps, context, **options):
        seen.append((latents["image"], timesteps))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(
            stop,
            {"image": noise},
            text,
            steps=steps,
            guidance=1.0,
            sampler=sampler,
            start={"image": clean * scale},
            start_strength=fidelity,
        )
    [(x, when)] = seen
    timesteps = make_scheduler(sampler, steps).timesteps
    assert when == timesteps[-33]
    expected = add_noise(clean * scale, noise, when.round().long(), alphas_cumprod())
    torch.testing.assert_close(x, expected, atol=2e-2, rtol=0)


def test_more_fidelity_is_closer_to_the_start(versatile, text):
    start = {"image": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))}
    distances = [
        float((latents(versatile, text, steps=10, guidance=1.0, start=start, fidelity=f) - start["image"]).norm())
        for f in (0.0, 0.5, 0.9, 1.0)
    ]
    assert distances == sorted(distances, reverse=True) and distances[-1] == 0


def test_images_to_start_from(versatile, text, pixels):
    out = versatile.generate(text.expand(2), ["image"], start=pixels, fidelity=1.0, **SMALL)["image"]
    assert torch.equal(out, pixels.expand(2, -1, -1, -1))
    near = versatile.generate(text, ["image"], start=pixels, fidelity=0.5, **SMALL)["image"]
    encoded = {"image": versatile.encode("image", pixels)}
    same = versatile.generate(text, ["image"], start=encoded, fidelity=0.5, **SMALL)["image"]
    assert torch.equal(near, same)


def test_progress_counts_all_runs(versatile, text):
    calls = []
    versatile.generate_latents(text, ["text", "image"], progress=lambda *call: calls.append(call), **SMALL)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"start": {"image": torch.zeros(1, 4, 16, 8)}, "fidelity": 0.5},
            r"start of image is \[1, 4, 16, 8\], where \[1",
        ),
        (
            {"start": {"image": torch.full((1, 4, 8, 8), float("nan"))}},
            "start of image holds values that are not finite",
        ),
        ({"start": {"image": "x"}}, "start of image is a str"),
        ({"start": {"text": torch.zeros(1, 16)}, "fidelity": 0.5}, "a start for text, which is not generated"),
        ({"start": torch.rand(1, 1, 32, 32)}, r"starts from images \[B, 3, H, W\], not \[1, 1, 32, 32\]"),
        ({"start": torch.rand(1, 4, 32, 32)}, "give three channels"),
        ({"start": torch.rand(1, 3, 30, 32)}, "cannot be encoded: resize it"),
        ({"start": torch.full((1, 3, 32, 32), float("nan"))}, "The start holds values that are not finite"),
        ({"fidelity": 0.5}, "fidelity above 0 needs a start for image"),
        ({"fidelity": 1.5}, "fidelity: 1.5 is out of range; choose a number from 0 to 1"),
        ({"fidelity": float("nan")}, "fidelity: nan is out of range"),
        ({"guidance": [1.0, 2.0]}, "2 guidance scales for 1 contexts: give one, or one for each"),
        ({"guidance": float("nan")}, "guidance: nan is out of range"),
        ({"held": {"image": torch.zeros(1, 4, 8, 8)}}, "No stream attends to a held stream in this model"),
    ],
)
def test_what_cannot_be_generated(versatile, text, options, message):
    with pytest.raises(ValueError, match=message):
        versatile.generate(text, ["image"], **{**SMALL, **options})


def test_prompts_and_contexts_are_for_different_models(versatile, text, codi):
    prompt = codi.prompt("text", "a star")
    with pytest.raises(ValueError, match="guided by what `context` gives"):
        versatile.generate(prompt, ["image"], **SMALL)
    with pytest.raises(ValueError, match="guided by what `prompt` gives"):
        codi.generate(text, ["image"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t, i: mix([]), "There is no context: give at least one"),
        (lambda t, i: mix([(t, 0.0), (i, 0.0)]), "ratios: all are 0"),
        (lambda t, i: mix([(t, -1.0), (i, 2.0)]), "ratios: -1 is out of range"),
        (lambda t, i: mix([(t, float("nan"))]), "ratios: nan is out of range"),
        (lambda t, i: mix([(t, 1.0)], mixing="sum"), "no mixing 'sum'; choose from attention, layer"),
        (lambda t, i: mix([(t.expand(2), 1.0), (i.expand(3), 1.0)]), r"batch sizes \[2, 3\]: make them equal, or 1"),
        (lambda t, i: mix([(t, 1.0), (i, 1.0)]).interpolate([7.5]), "1 scales for 2 contexts"),
        (lambda t, i: concatenate([]), "There is no context"),
        (lambda t, i: concatenate([t, i]), "image and text cannot be concatenated: mix them"),
        (lambda t, i: t.expand(2).expand(3), "2 contexts cannot make 3 results: give one, or so many"),
    ],
)
def test_what_cannot_be_mixed(text, image, make, message):
    with pytest.raises(ValueError, match=message):
        make(text, image)


@pytest.mark.parametrize(
    ("kind", "content", "options", "message"),
    [
        ("audio", torch.zeros(1, 1, 9), {}, "no audio contexts; choose from text, image"),
        ("text", [], {}, "There is no prompt"),
        ("text", "a", {"weight": 0.5}, "are for image contexts: leave them out"),
        ("text", "a", {"mask": torch.ones(1, 1, 4, 4)}, "are for image contexts"),
    ],
)
def test_what_is_no_context(versatile, kind, content, options, message):
    with pytest.raises(ValueError, match=message):
        versatile.context(kind, content, **options)


def test_a_model_without_the_encoder(pixels):
    codi = cb.CoDi(dataclasses.replace(VERSATILE, image_encoder=None))
    with pytest.raises(ValueError, match="no image encoder; it has text"):
        codi.context("image", pixels)


def test_the_command(versatile, tmp_path, pixels, capsys):
    """`codi generate` mixes prompts in the attention, and loads what the flows at hand need."""
    model, out = save(tmp_path / "small.safetensors", versatile), tmp_path / "out"
    to_pil(pixels[0]).save(tmp_path / "cat.png")
    command = [
        "generate",
        "--model",
        str(model),
        "--steps",
        "1",
        "--count",
        "2",
        "--image-size",
        "32",
        "--out",
        str(out),
    ]
    mixed = [
        *command,
        "--text",
        "two red stars",
        "--image",
        f"{tmp_path / 'cat.png'}:0.3",
        "--outputs",
        "image",
        "text",
    ]
    assert main(mixed) == 0
    assert {path.name for path in out.iterdir()} >= {"image_1.png", "image_2.png", "text_1.txt", "text_2.txt"}
    assert main([*mixed, "--interpolation", "slerp"]) == 1
    assert "mixes prompts in its attention: leave --interpolation out" in capsys.readouterr().err


def test_concatenated_contexts(text, image):
    """All of one kind; where one has unconditional tokens of its own for texts, so have all."""
    plain = Context("image", image.tokens[:, :3], image.unconditional[:, :3])
    both = concatenate([image.expand(2), plain])
    assert both.tokens.shape == (2, 68, 32) and torch.equal(both.tokens[:, 65:], plain.tokens.expand(2, -1, -1))
    assert torch.equal(both.without("text")[:, :65], image.without("text").expand(2, -1, -1))
    assert not both.without("text")[:, 65:].any() and not both.without("image").any()
    assert concatenate([text, text]).unconditional_for_text is None
