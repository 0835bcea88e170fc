"""Whatever is connected to CoDi Couple Guiders, the user reads one sentence that begins with the input's name."""

import re

import pytest
import torch
from host import core_models as core
from host.core_models import sigmas_of
from host.coupled_runs import Case, nested, sampler, together
from host.test_host_bad_input import REMEDY

NAN = float("nan")


@pytest.fixture
def node(run_node):
    """The node with two guiders unless told otherwise."""

    def call(guiders=None, **settings):
        given = guiders if guiders is not None else Case.of("sd15", "flux").guiders
        defaults = {"weight": 3.0, "start_percent": 0.0, "end_percent": 1.0, "lead": 1}
        sockets = {f"guider_{i}": one for i, one in enumerate(given, start=1)}
        return run_node("CoDiCoupleGuiders", guiders=sockets, **defaults | settings)[0]

    return call


def sentence(error) -> str:
    text = str(error.value)
    assert re.search(REMEDY, text) and text.endswith(".") and "\n" not in text, text
    return text


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"weight": NAN}, "weight"),
        ({"weight": -1.0}, "weight"),
        ({"weight": 1e9}, "weight"),
        ({"start_percent": 2.0}, "start_percent"),
        ({"end_percent": NAN}, "end_percent"),
        ({"start_percent": 0.8, "end_percent": 0.2}, "start_percent"),
        ({"lead": 0}, "lead"),
        ({"lead": 3}, "lead"),
        ({"coupler": object()}, "coupler"),
    ],
)
def test_settings(node, settings, name):
    with pytest.raises(ValueError, match=f"^{name}: ") as error:
        node(**settings)
    sentence(error)


def test_too_few_guiders(node):
    for guiders in ([], Case.of("sd15").guiders):
        with pytest.raises(ValueError, match="^guiders: there is nothing to couple") as error:
            node(guiders)
        sentence(error)


def test_sockets_count_and_not_their_numbers(run_node):
    first, second = Case.of("sd15", "flux").guiders
    settings = {"weight": 0.0, "start_percent": 0.0, "end_percent": 1.0, "lead": 2}
    given = {"guider_4": second, "guider_2": first, "guider_3": None}
    assert run_node("CoDiCoupleGuiders", guiders=given, **settings)[0].guiders == [first, second]


def test_what_cannot_be_coupled(node):
    import comfy.model_sampling

    first, second = Case.of("sd15", "flux").guiders
    with pytest.raises(ValueError, match="^guiders: guider_2 is itself a coupled one") as error:
        node([first, node([first, second])])
    sentence(error)
    for strange in (object(), type("Sampled", (), {"sample": lambda self: None})()):
        with pytest.raises(ValueError, match="^guiders: guider_1 is none that samples") as error:
            node([strange, second])
        sentence(error)
    model = core.build("sd15")

    class Restoring(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.IMG_TO_IMG):
        pass

    model.add_object_patch("model_sampling", Restoring(model.model.model_config))
    with pytest.raises(ValueError, match="^guiders: the model of guider_2 turns images into others") as error:
        node([first, core.guider("sd15", model)])
    sentence(error)


def wrong_latents():
    image, other = (torch.zeros(1, *core.SHAPES[name]) for name in ("sd15", "flux"))
    yield "latent_image: this latent has one stream for 2 guiders", [image]
    yield "latent_image: this latent has 3 streams for 2 guiders", [image, other, image]
    yield (
        "latent_image: the batch sizes of the streams differ (stream 1 1, stream 2 2)",
        [image, other.repeat(2, 1, 1, 1)],
    )
    yield "latent_image: stream 2 has 4 channels, but the model of guider_2 takes 16", [image, image]
    yield "latent_image: this latent is empty", [image, other[:, :, :0]]
    yield "latent_image: the number 2 latent", [image, other * NAN]
    yield "latent_image: the number 1 latent is of type int64", [image.long(), other]


@pytest.mark.parametrize(("start", "latents"), list(wrong_latents()), ids=lambda value: str(value)[:50])
def test_latents_that_do_not_fit(couple, start, latents):
    case = Case.of("sd15", "flux")
    sigmas = sigmas_of(case.guiders[0].model_patcher)
    noise = [torch.randn(z.shape) for z in latents]
    pair = [nested(noise), nested(latents)] if len(latents) > 1 else [noise[0], latents[0]]
    with pytest.raises(ValueError, match=f"^{re.escape(start)}") as error:
        couple(case).sample(*pair, sampler(), sigmas, seed=0)
    sentence(error)


def test_noise_sigmas_and_masks(couple):
    case = Case.of("sd15", "flux")
    sigmas = sigmas_of(case.guiders[0].model_patcher)
    good, noise = nested(case.latents), nested(case.noise)
    cases = [
        ("noise: this does not give noise for every stream", case.noise[0], sigmas, None, 0),
        ("noise: ", nested([case.noise[0] * NAN, case.noise[1]]), sigmas, None, 0),
        ("sigmas: ", noise, sigmas * NAN, None, 0),
        ("sigmas: these begin at 14.61", noise, sigmas, None, 1),
        ("latent_image: its noise mask", noise, sigmas, nested([torch.ones(1, 1, 8, 8) * 5] * 2), 0),
        ("latent_image: every stream is held", noise, sigmas, nested([torch.zeros(1, 1, 8, 8)] * 2), 0),
    ]
    for start, given, levels, mask, lead in cases:
        with pytest.raises(ValueError, match=f"^{re.escape(start)}") as error:
            couple(case, lead=lead).sample(given, good, sampler(), levels, denoise_mask=mask, seed=0)
        sentence(error)


def test_a_coupler_of_other_latents(couple, coupler_of):
    case = Case.of("sd15", "flux")
    for names in (("sd15", "stable_audio"), ("ace", "stable_audio")):
        with pytest.raises(ValueError, match="^coupler: a latent of shape") as error:
            together(couple(case, coupler=coupler_of(*names), weight=1.0), case, torch.tensor([1.0, 0.0]))
        sentence(error)


def test_no_sigmas_change_nothing(couple):
    case = Case.of("sd15", "flux", empty=False)
    results = together(couple(case), case, torch.empty(0))
    assert all(torch.equal(a, b) for a, b in zip(results, case.latents))


def test_images_for_video_models_get_their_frame(couple):
    """As the core does it for a lone stream."""
    import comfy.latent_formats

    class Frames(comfy.latent_formats.LatentFormat):
        latent_dimensions = 3

    case = Case.of("sd15", "sdxl")
    seen = []
    model = case.guiders[1].model_patcher
    model.add_object_patch("latent_format", Frames())

    def flat(apply_model, arguments):
        seen.append(tuple(arguments["input"].shape))
        return apply_model(arguments["input"].squeeze(2), arguments["timestep"], **arguments["c"]).unsqueeze(2)

    model.set_model_unet_function_wrapper(flat)
    results = together(couple(case), case, torch.tensor([4.0, 0.0]))
    assert seen and set(seen) == {(2, 4, 1, 8, 12)} and results[1].shape == (1, 4, 1, 8, 12)
