"""Time-resolved environment tokens, and how a target stream attends to them step by step."""

import pytest
import tiny
import torch

from codi_backend.models.diffuser.environment import resampled


@pytest.fixture(scope="module")
def diffuser():
    return tiny.build(tiny.FOUR).diffuser


@pytest.fixture
def latents():
    generator = torch.Generator().manual_seed(0)
    shapes = {"text": (2, 16), "image": (2, 4, 8, 8), "video": (2, 4, 4, 8, 8), "audio": (2, 8, 8, 8)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


WHEN, CONTEXT = torch.tensor([300, 700]), torch.nn.functional.normalize(torch.ones(2, 1, 32), dim=-1)


def test_tokens_per_time_step(diffuser, latents):
    tokens = diffuser.environment(latents, WHEN)
    # Downsampling keeps the eight rows of the audio latent.
    assert {name: t.shape[1] for name, t in tokens.items()} == {"text": 1, "image": 1, "video": 4, "audio": 8}
    for name in ("video", "audio"):
        varying, constant = tokens[name].detach().double().chunk(2, -1)
        assert (varying[:, 0] - varying[:, 1]).abs().max() > 1e-3
        # All tokens have length 1, so the constant channels differ by a factor.
        direction = torch.nn.functional.normalize(constant, dim=-1)
        torch.testing.assert_close(direction, direction[:, :1].expand_as(direction), atol=1e-5, rtol=0)


@torch.no_grad()
def test_frames_attend_to_their_own_time_step(diffuser, latents):
    """A changed last token of the audio changes the last frame only."""
    streams = {name: latents[name] for name in ("video", "audio")}
    before = diffuser.environment(streams, WHEN)
    later = {**before, "audio": before["audio"].clone()}
    later["audio"][:, -1] = -later["audio"][:, -1]
    connector = next(iter(diffuser.networks["image"].input_connectors.values()))
    network, h = diffuser.networks["image"], torch.randn(2 * 4, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    out = [
        connector(h, [(network._match_time(e["audio"], h, 4), 1.0)], row_wise=True).unflatten(0, (2, 4))
        for e in (before, later)
    ]
    assert torch.equal(out[0][:, :3], out[1][:, :3]) and not torch.equal(out[0][:, 3], out[1][:, 3])


@torch.no_grad()
def test_rows_attend_to_their_own_time_step(diffuser, latents):
    network = diffuser.networks["audio"]
    connector = next(iter(network.input_connectors.values()))
    h = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    tokens = diffuser.environment({"video": latents["video"]}, WHEN)["video"]
    other = tokens.clone()
    other[:, 0] = -other[:, 0]
    # Self-attention comes before the connector's cross-attention, so that a token changes its own row only.
    a, b = (connector(h, [(network._match_time(t, h, None), 1.0)], row_wise=True) for t in (tokens, other))
    assert torch.equal(a[:, :, 1:], b[:, :, 1:]) and not torch.equal(a[:, :, 0], b[:, :, 0])


def test_targets_without_time_attend_to_the_mean(diffuser):
    tokens = torch.nn.functional.normalize(torch.randn(2, 4, 32), dim=-1)
    image, text = diffuser.networks["image"], diffuser.networks["text"]
    for network in (image, text):
        matched = network._match_time(tokens, torch.zeros(2, 32, 4, 4), None)
        expected = torch.nn.functional.normalize(tokens.mean(1, keepdim=True), dim=-1)
        torch.testing.assert_close(matched, expected)


def test_resampling():
    ramp = torch.arange(4.0).reshape(1, 4, 1)
    assert torch.equal(resampled(ramp, 4), ramp)
    torch.testing.assert_close(resampled(ramp, 2), torch.tensor([0.5, 2.5]).reshape(1, 2, 1))
    torch.testing.assert_close(resampled(ramp, 8)[0, 1:3, 0], torch.tensor([0.25, 0.75]))


def test_every_token_counts_in_fewer_steps():
    for token in torch.eye(16):
        assert resampled(token.reshape(1, 16, 1), 4).sum() == pytest.approx(0.25)


def test_all_four_streams_attend_to_each_other(diffuser, latents):
    with torch.no_grad():
        joint = diffuser(latents, WHEN, CONTEXT)
        alone = diffuser(latents, WHEN, CONTEXT, alignment="none")
        assert joint.keys() == latents.keys()
        for name, x in latents.items():
            assert joint[name].shape == x.shape and not torch.equal(joint[name], alone[name])
