"""Networks without connectors, as in the first published edition, which has no latent alignment."""

import dataclasses

import pytest
import torch

from codi_backend.models.diffuser import Diffuser


@pytest.fixture
def unaligned(tiny_config):
    networks = {
        name: dataclasses.replace(network, connector=tuple(False for _ in network.connector))
        for name, network in tiny_config.networks.items()
    }
    return Diffuser(dataclasses.replace(tiny_config, networks=networks))


def test_the_state_has_no_alignment_parts(unaligned):
    assert not [key for key in unaligned.state_dict() if "environment" in key or "connectors" in key]


def test_a_joint_run_equals_separate_runs(unaligned, streams):
    latents, timesteps, context = streams
    with torch.no_grad():
        joint = unaligned(latents, timesteps, context, alignment="paper")
        alone = unaligned({"audio": latents["audio"]}, timesteps, context)
    assert torch.equal(joint["audio"], alone["audio"])


def test_there_is_no_environment(unaligned, streams):
    latents, timesteps, _ = streams
    with pytest.raises(ValueError, match="no environment encoder for"):
        unaligned.environment(latents, timesteps)
