"""Networks of the first published edition, which has no latent alignment."""

import dataclasses

import pytest
import torch

from codi_backend.diffuser import Diffuser


@pytest.fixture
def deaf(tiny_config):
    networks = {
        name: dataclasses.replace(network, connector=tuple(False for _ in network.connector))
        for name, network in tiny_config.networks.items()
    }
    return Diffuser(dataclasses.replace(tiny_config, networks=networks))


def test_they_hold_no_parts_of_alignment(deaf):
    assert not [key for key in deaf.state_dict() if "environment" in key or "connectors" in key]


def test_a_joint_run_is_as_without_alignment(deaf, streams):
    latents, timesteps, context = streams
    with torch.no_grad():
        joint = deaf(latents, timesteps, context, alignment="paper")
        alone = deaf({"audio": latents["audio"]}, timesteps, context)
    assert torch.equal(joint["audio"], alone["audio"])


def test_there_is_no_environment_to_ask_for(deaf, streams):
    latents, timesteps, _ = streams
    with pytest.raises(ValueError, match="no environment encoder for"):
        deaf.environment(latents, timesteps)
