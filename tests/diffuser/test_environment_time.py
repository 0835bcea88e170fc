"""Environment tokens that keep time, and what the steps of a listener make of them."""

import pytest
import torch
import whole

from codi_backend.diffuser.environment import resampled


@pytest.fixture(scope="module")
def diffuser():
    return whole.build_whole().diffuser


@pytest.fixture
def latents():
    generator = torch.Generator().manual_seed(0)
    shapes = {"text": (2, 16), "image": (2, 4, 8, 8), "video": (2, 4, 4, 8, 8), "audio": (2, 8, 8, 8)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


WHEN, CONTEXT = torch.tensor([300, 700]), torch.nn.functional.normalize(torch.ones(2, 1, 32), dim=-1)


def test_tokens_keep_time(diffuser, latents):
    tokens = diffuser.environment(latents, WHEN)
    # Downsampling leaves the sound's eight rows as they are.
    assert {name: t.shape[1] for name, t in tokens.items()} == {"text": 1, "image": 1, "video": 4, "audio": 8}
    for name in ("video", "audio"):
        moment, whole_stream = tokens[name].detach().double().chunk(2, -1)
        assert (moment[:, 0] - moment[:, 1]).abs().max() > 1e-3
        # All tokens have length 1, so what they share differs by a factor.
        direction = torch.nn.functional.normalize(whole_stream, dim=-1)
        torch.testing.assert_close(direction, direction[:, :1].expand_as(direction), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_step_hears_its_own_time(diffuser, latents):
    """Changing the last moment of a sound changes frames near it through what they hear, and not those far from it."""
    streams = {name: latents[name] for name in ("video", "audio")}
    heard = diffuser.environment(streams, WHEN)
    later = {**heard, "audio": heard["audio"].clone()}
    later["audio"][:, -1] = -later["audio"][:, -1]
    connector = next(iter(diffuser.networks["image"].input_connectors.values()))
    network, h = diffuser.networks["image"], torch.randn(2 * 4, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    out = [
        connector(h, [(network._in_time(e["audio"], h, 4), 1.0)], in_step=True).unflatten(0, (2, 4))
        for e in (heard, later)
    ]
    assert torch.equal(out[0][:, :3], out[1][:, :3]) and not torch.equal(out[0][:, 3], out[1][:, 3])


@torch.no_grad()
def test_rows_hear_their_own_time(diffuser, latents):
    network = diffuser.networks["audio"]
    connector = next(iter(network.input_connectors.values()))
    h = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    tokens = diffuser.environment({"video": latents["video"]}, WHEN)["video"]
    other = tokens.clone()
    other[:, 0] = -other[:, 0]
    # Self-attention comes before the connector's cross-attention, so what a row hears stays in its row.
    a, b = (connector(h, [(network._in_time(t, h, None), 1.0)], in_step=True) for t in (tokens, other))
    assert torch.equal(a[:, :, 1:], b[:, :, 1:]) and not torch.equal(a[:, :, 0], b[:, :, 0])


def test_listeners_without_time_hear_the_mean(diffuser):
    tokens = torch.nn.functional.normalize(torch.randn(2, 4, 32), dim=-1)
    image, text = diffuser.networks["image"], diffuser.networks["text"]
    for network in (image, text):
        heard = network._in_time(tokens, torch.zeros(2, 32, 4, 4), None)
        expected = torch.nn.functional.normalize(tokens.mean(1, keepdim=True), dim=-1)
        torch.testing.assert_close(heard, expected)


def test_resampling():
    ramp = torch.arange(4.0).reshape(1, 4, 1)
    assert torch.equal(resampled(ramp, 4), ramp)
    torch.testing.assert_close(resampled(ramp, 2), torch.tensor([0.5, 2.5]).reshape(1, 2, 1))
    torch.testing.assert_close(resampled(ramp, 8)[0, 1:3, 0], torch.tensor([0.25, 0.75]))


def test_no_moment_is_lost_on_fewer_steps():
    for moment in torch.eye(16):
        assert resampled(moment.reshape(1, 16, 1), 4).sum() == pytest.approx(0.25)


def test_all_four_streams_hear_each_other(diffuser, latents):
    with torch.no_grad():
        joint = diffuser(latents, WHEN, CONTEXT)
        alone = diffuser(latents, WHEN, CONTEXT, alignment="none")
        assert joint.keys() == latents.keys()
        for name, x in latents.items():
            assert joint[name].shape == x.shape and not torch.equal(joint[name], alone[name])
