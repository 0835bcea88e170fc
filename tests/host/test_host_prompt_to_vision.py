"""CoDi's prompts as image embeddings of ComfyUI's own models."""

import pytest
import torch
from host import core_models

WIDTH = 768  # of CLIP ViT-L/14, and of the prompts of CoDi's published encoders


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt(batch=1, width=WIDTH, seed=0):
    """What a CoDi Prompt node of a published checkpoint gives: one token of norm 1."""
    return [[torch.nn.functional.normalize(noise(batch, 1, width, seed=seed), dim=-1), {}]]


def encoded(batch=1, width=WIDTH, norm=20.0):
    """As from CLIP Vision Encode."""
    import comfy.clip_vision

    output = comfy.clip_vision.Output()
    output.image_embeds = norm * torch.nn.functional.normalize(noise(batch, width, seed=9), dim=-1)
    return output


@pytest.fixture
def convert(run_node):
    def call(conditioning, reference):
        return run_node("CoDiPromptToClipVisionOutput", conditioning=conditioning, reference=reference)[0]

    return call


def test_it_is_marked_experimental(host):
    schema = host.node("CoDiPromptToClipVisionOutput").GET_SCHEMA()
    assert schema.is_experimental and schema.description.startswith("Experimental")


def test_direction_of_the_prompt_and_norm_of_the_reference(convert):
    given = prompt(3)
    out = convert(given, encoded(norm=20.0))
    torch.testing.assert_close(out.image_embeds, 20.0 * given[0][0][:, 0])
    # Linear mixtures have norms below 1, and batches have one for each image.
    weaker = [[0.3 * given[0][0], {}]]
    torch.testing.assert_close(convert(weaker, encoded(norm=20.0)).image_embeds, out.image_embeds)
    pair = encoded(2)
    pair.image_embeds[1] *= 2
    torch.testing.assert_close(convert(given, pair).image_embeds.norm(dim=-1), torch.full((3,), 30.0))


def conditioned(host, output, augmentation=0.0):
    positive = core_models.conditioning("unclip_l")
    with torch.inference_mode():
        return host.node("unCLIPConditioning")().apply_adm(positive, output, 1.0, augmentation)[0]


@pytest.mark.parametrize("augmentation", [0.0, 0.3])
def test_unclip_l_samples_with_it(host, convert, augmentation):
    model = core_models.build("unclip_l")
    latent = {"samples": torch.zeros(1, *core_models.SHAPES["unclip_l"])}

    def sample(seed):
        positive = conditioned(host, convert(prompt(seed=seed), encoded()), augmentation)
        with torch.inference_mode():
            return host.node("KSampler")().sample(
                model, 0, 2, 3.0, "euler", "normal", positive, core_models.conditioning("unclip_l", 1), latent
            )[0]["samples"]

    first, again, other = map(sample, (0, 0, 1))
    assert first.isfinite().all() and torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)


def test_unclip_l_gets_the_embedding_as_that_of_an_image(host, convert):
    from comfy.model_base import unclip_adm

    model = core_models.build("unclip_l").model
    output = convert(prompt(), encoded())
    entries = conditioned(host, output)[0][1]["unclip_conditioning"]
    vector = unclip_adm(entries, "cpu", model.noise_augmentor, seed=0)
    assert vector.shape == (1, 2 * WIDTH) == (1, model.adm_channels)
    cosine = torch.nn.functional.cosine_similarity(vector[:, :WIDTH], output.image_embeds)
    assert cosine > 0.99, "noise level 0 adds almost no noise to embeddings of this norm"


def test_stable_cascade_takes_it(host, convert):
    from comfy.model_base import StableCascade_C

    output = convert(prompt(), encoded())
    entries = conditioned(host, output)[0][1]["unclip_conditioning"]
    given = StableCascade_C.extra_conds(None, pooled_output=None, unclip_conditioning=entries)["clip_img"].cond
    assert torch.equal(given, output.image_embeds[None]) and given.shape == (1, 1, WIDTH)


def without_embedding():
    import comfy.clip_vision

    return comfy.clip_vision.Output()


@pytest.mark.parametrize(
    ("conditioning", "reference", "message"),
    [
        (
            prompt(),
            lambda: encoded(width=1024),
            "^conditioning: a prompt of width 768 does not fit reference, which",
        ),
        (prompt() + prompt(), encoded, "^conditioning: this holds 2 prompts"),
        ([[noise(1, 77, WIDTH), {}]], encoded, "^conditioning: this has 77 tokens and is no single embedding"),
        ([[torch.zeros(1, 1, WIDTH), {}]], encoded, "^conditioning: an embedding of zeros has no direction"),
        (prompt(), without_embedding, "^reference: there is no image embedding in this; connect CLIP Vision Encode"),
        (prompt(), lambda: encoded(norm=0.0), "^reference: its image embedding is 0"),
        (prompt(), lambda: encoded(norm=float("nan")), "^reference: its image embedding .* not finite"),
    ],
)
def test_inputs_that_do_not_fit(convert, conditioning, reference, message):
    with pytest.raises(ValueError, match=message):
        convert(conditioning, reference())


def test_the_small_model_is_refused(run_node, convert):
    encoders = run_node("CoDiLoadModel", checkpoint="mini (built in)", image_and_video=False, audio=False, text=True)[1]
    small, _ = run_node("CoDiPromptText", prompt_encoders=encoders, text="a red star")
    with pytest.raises(
        ValueError, match="^conditioning: a prompt of width .* load a CoDi checkpoint with CLIP ViT-L/14"
    ):
        convert(small, encoded())
