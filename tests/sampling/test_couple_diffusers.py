"""The example of docs/coupling.md: diffusers' networks of SD1.5 and AudioLDM2, small and with random weights."""

import diffusers
import pytest
import torch
from diffusers.pipelines.audioldm2 import AudioLDM2UNet2DConditionModel

import codi_backend as cb
from codi_backend.config.coupler import CouplerConfig, LatentSpace


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    image = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
        layers_per_block=1,
    )
    audio = AudioLDM2UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=((None, 24, 16), (None, 24, 16)),
        attention_head_dim=4,
        norm_num_groups=8,
        layers_per_block=1,
    )
    return image.eval(), audio.eval()


@pytest.fixture(scope="module")
def streams(networks):
    image, audio = networks
    text, sounds, generated = (torch.randn(2, 5, width) for width in (24, 16, 24))

    def predict_image(x, t):
        return image(x, t, text[:1].expand(len(x), -1, -1)).sample

    def predict_audio(x, t):
        return audio(
            x,
            t,
            encoder_hidden_states=generated[:1].expand(len(x), -1, -1),
            encoder_hidden_states_1=sounds[:1].expand(len(x), -1, -1),
            encoder_attention_mask_1=torch.ones(len(x), 5, dtype=torch.long),
        ).sample

    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return {
        "image": cb.CoupledStream(cb.from_diffusers(predict_image, diffusers.PNDMScheduler(**schedule)), 0.18215),
        "audio": cb.CoupledStream(cb.from_diffusers(predict_audio, diffusers.DDIMScheduler(**schedule)), 0.42),
    }


SHAPES = {"image": (2, 4, 16, 16), "audio": (2, 8, 32, 16)}


@pytest.fixture(scope="module")
def coupler():
    spaces = (
        LatentSpace("image", 4, "HW", (16, 16), (0.0,) * 4, 5.5),
        LatentSpace("audio", 8, "TF", (32, 16), (0.0,) * 8, 2.4),
    )
    torch.manual_seed(1)
    return cb.Coupler(CouplerConfig(spaces, width=16, blocks=1, token_dim=16)).eval()


def agreement(coupler, latents):
    clean = torch.zeros(2)
    with torch.no_grad():
        return coupler.score(*(coupler.tokens(i, latents[name], clean) for i, name in enumerate(SHAPES)))


def test_two_networks_of_diffusers_are_pulled_together(streams, coupler):
    sigmas = [14.6, 4.0, 1.0, 0.3, 0.0]
    apart = cb.couple(streams, SHAPES, None, sigmas=sigmas, seed=3)
    joint = cb.couple(streams, SHAPES, coupler, sigmas=sigmas, weight=30.0, seed=3)
    assert {name: tuple(z.shape) for name, z in joint.items()} == SHAPES
    assert bool((agreement(coupler, joint) > agreement(coupler, apart)).all())
    assert all(not torch.equal(joint[name], apart[name]) and joint[name].isfinite().all() for name in SHAPES)


def test_a_held_image_pulls_the_audio_and_stays(streams, coupler):
    image = 5 * torch.randn(SHAPES["image"])
    given = {"sigmas": [14.6, 4.0, 1.0, 0.3, 0.0], "held": {"image": image}}
    one = cb.couple(streams, SHAPES, coupler, weight=30.0, **given)
    two = cb.couple(streams, SHAPES, None, **given)
    assert list(one) == ["audio"]
    assert bool((agreement(coupler, given["held"] | one) > agreement(coupler, given["held"] | two)).all())
