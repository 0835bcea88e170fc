"""The coupler network, its file, and environment encoders as a coupler."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from codi_backend.checkpoints.coupler_file import load_coupler, save_coupler, training_record
from codi_backend.config.coupler import CouplerConfig, LatentSpace
from codi_backend.modalities import latent_shape, scale_factor
from codi_backend.models.coupler import Coupler
from codi_backend.models.noise_schedule import noise_ratio, timestep_of

SHAPES = {"": (), "T": (64,), "HW": (16, 24), "TF": (32, 8), "FT": (16, 50), "THW": (6, 8, 8)}


def space(axes, channels=4, name=None):
    return LatentSpace(name or axes or "vector", channels, axes, SHAPES[axes], (0.5,) * channels, 2.0)


@pytest.fixture(scope="module")
def coupler():
    torch.manual_seed(0)
    every = Coupler(CouplerConfig(tuple(space(axes) for axes in SHAPES), width=16, blocks=1, token_dim=16)).eval()
    for p in every.parameters():  # zero convolutions would hide what they do
        torch.nn.init.normal_(p, std=0.2)
    return every


@pytest.mark.parametrize("place, axes", list(enumerate(SHAPES)))
def test_tokens_of_every_kind_of_latent(coupler, place, axes):
    latents = torch.randn(3, 4, *SHAPES[axes])
    tokens = coupler.tokens(place, latents, torch.tensor([0.0, 1.0, 30.0]))
    assert tokens.pooled.shape == (3, 16) and tokens.pooled.isfinite().all()
    assert (tokens.over_time is not None) == ("T" in axes)
    # Rows do not influence each other, and the noise level matters.
    alone = coupler.tokens(place, latents[1:2], torch.tensor([1.0]))
    torch.testing.assert_close(alone.pooled, tokens.pooled[1:2], rtol=1e-4, atol=1e-5)
    other = coupler.tokens(place, latents[1:2], torch.tensor([2.0]))
    assert not torch.allclose(alone.pooled, other.pooled, atol=1e-4)


@pytest.mark.parametrize("axes, extent", [("T", (37,)), ("HW", (30, 9)), ("TF", (50, 8)), ("THW", (3, 12, 8))])
def test_other_sizes_than_in_training_work(coupler, axes, extent):
    place = list(SHAPES).index(axes)
    assert coupler.tokens(place, torch.randn(2, 4, *extent), torch.ones(2)).pooled.isfinite().all()


def test_tokens_over_time_follow_the_time(coupler):
    """A latent that is delayed has tokens that are delayed; the last axis of FT is time."""
    place = list(SHAPES).index("FT")
    z = torch.zeros(1, 4, 16, 400)
    z[..., 40:48] = 5
    late = z.roll(160, -1)
    now, then = (coupler.tokens(place, x, torch.ones(1)).over_time[0] for x in (z, late))
    peak = [int((t - t[-1:]).norm(dim=1).argmax()) for t in (now, then)]
    assert peak[1] - peak[0] == round(160 / (400 / len(now)))


def test_frames_share_what_they_have_in_common(coupler):
    """Tokens of a frame depend on frames that are farther away than the blocks over time at the end reach."""
    place = list(SHAPES).index("THW")
    video = torch.zeros(1, 4, 14, 8, 8)
    other = video.clone()
    other[:, :, 0] = 3
    before, after = (coupler.tokens(place, z, torch.ones(1)).over_time[0, 6] for z in (video, other))
    assert not torch.allclose(before, after, atol=1e-4)


def test_score_is_the_diagonal_of_the_logits_and_symmetric(coupler):
    video, audio, image = (list(SHAPES).index(axes) for axes in ("THW", "TF", "HW"))
    tokens = {
        p: coupler.tokens(p, torch.randn(4, 4, *SHAPES[axes]), torch.ones(4))
        for p, axes in ((video, "THW"), (audio, "TF"), (image, "HW"))
    }
    for a, b in ((video, audio), (image, audio)):
        logits = coupler.logits(tokens[a], tokens[b])
        torch.testing.assert_close(coupler.score(tokens[a], tokens[b]), logits.diagonal())
        torch.testing.assert_close(coupler.logits(tokens[b], tokens[a]), logits.T)


def test_streams_are_matched_to_spaces_by_shape(coupler):
    order = list(SHAPES)
    assert coupler.match([(2, 4, 9, 9), (2, 4)]) == [order.index("HW"), order.index("")]
    assert coupler.match([(2, 4, 1, 1)]) == [order.index("")]
    assert coupler.match([(2, 4, 8, 8)] * 3) == [order.index(a) for a in ("HW", "TF", "FT")]  # those that fit, in order
    for shapes in ([(2, 5, 8, 8)], [(2, 4, 3)] * 2, [(2,)]):
        with pytest.raises(ValueError, match="fits no free latent space .* vector \\[B, 4\\]"):
            coupler.match(shapes)


def test_a_file_holds_the_coupler_and_its_record(coupler, tmp_path):
    path = tmp_path / "new" / "c.safetensors"
    save_coupler(path, coupler, {"stage": "coupler"})
    read = load_coupler(path)
    assert read.config == coupler.config and training_record(path) == {"stage": "coupler"}
    for name, value in coupler.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert [p.name for p in path.parent.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"width": 32}, "does not fit its own configuration"),
        ({"width": 0}, "CouplerConfig.width is 0"),
        ({"blocks": 10**6}, "CouplerConfig.blocks"),
        ({"spaces": []}, "does not fit"),
        ({"unknown": 1}, "no field unknown"),
        ({"token_dim": 1 << 23}, "does not fit"),
    ],
)
def test_files_that_claim_something_else_are_refused(coupler, tmp_path, change, words):
    path = tmp_path / "c.safetensors"
    save_coupler(path, coupler)
    with safe_open(path, "pt") as file:
        weights, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    config = json.loads(metadata["codi_coupler"]) | change
    save_file(weights, path, metadata | {"codi_coupler": json.dumps(config)})
    with pytest.raises(ValueError, match=words) as caught:
        load_coupler(path)
    assert "c.safetensors" in str(caught.value)


def test_a_space_whose_values_do_not_fit_is_refused(coupler, tmp_path):
    path = tmp_path / "c.safetensors"
    bad = dataclasses.replace(coupler.config, spaces=(dataclasses.replace(space("HW"), mean=(0.0,)),))
    save_file({"log_scales": torch.zeros(2)}, path, {"codi_coupler": json.dumps(dataclasses.asdict(bad))})
    with pytest.raises(ValueError, match="another number of channels"):
        load_coupler(path)


def test_other_files_and_broken_weights_are_refused(coupler, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors is no coupler"):
        load_coupler(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        load_coupler(tmp_path / "b.safetensors")
    broken = Coupler(coupler.config)
    with torch.no_grad():
        broken.log_scales[0] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        save_coupler(tmp_path / "c.safetensors", broken)
    assert not (tmp_path / "c.safetensors").exists()


def test_timesteps_of_noise_levels_are_the_inverse():
    t = torch.tensor([0.0, 0.5, 17.25, 500.0, 998.9, 999.0])
    torch.testing.assert_close(timestep_of(noise_ratio(t)), t, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(timestep_of(torch.tensor([0.0, 100.0])), torch.tensor([0.0, 999.0]))


def test_environment_encoders_are_a_coupler(codi):
    streams = list(codi.config.diffuser.networks)
    coupler = Coupler.from_codi(codi.diffuser, {name: scale_factor(codi.config, name) for name in streams})
    latents = {name: torch.randn(2, *latent_shape(codi.config, name)) for name in streams}
    sigma = torch.full((2,), 0.7)
    with torch.no_grad():
        for place, (name, z) in enumerate(latents.items()):
            factor = scale_factor(codi.config, name)
            noisy = z * factor / (1 + (0.7 * factor) ** 2) ** 0.5
            tokens = codi.diffuser.environment({name: noisy}, timestep_of(sigma * factor))[name]
            expected = torch.nn.functional.normalize(tokens.mean(1), dim=-1)
            torch.testing.assert_close(coupler.tokens(place, z, sigma).pooled, expected)
    a, b = (coupler.tokens(p, z, sigma) for p, z in enumerate(list(latents.values())[:2]))
    assert bool((coupler.score(a, a).detach() >= 10 - 1e-3).all()) and coupler.score(a, b).shape == (2,)
