"""The tiny reference model and its golden cases, as fixtures."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from detweights import fill_
from safetensors.torch import load_file

from codi_backend.checkpoints.diffuser_names import to_reference
from codi_backend.config.reference import diffuser_from_reference
from codi_backend.models.diffuser import Diffuser

GOLDEN = Path(__file__).parents[2] / "golden" / "diffuser"


@dataclasses.dataclass
class Case:
    latents: dict
    timesteps: torch.Tensor
    context: torch.Tensor
    out: dict
    environment: dict


def _read_case(name):
    meta, tensors = json.loads((GOLDEN / f"{name}.json").read_text()), load_file(GOLDEN / f"{name}.safetensors")
    mix = {kind: meta["mix_weight"][kind] for kind in meta["condition_types"]}
    return Case(
        latents={m: tensors[f"in/x_{m}"] for m in meta["xtype"]},
        timesteps=tensors["in/timesteps"],
        context=sum(w * tensors[f"in/cond_{kind}"] for kind, w in mix.items()) / sum(mix.values()),
        out={m: tensors[f"out/{m}"] for m in meta["xtype"]},
        environment={k.split(".")[0].removeprefix("mid/unet_"): v for k, v in tensors.items() if "env_out" in k},
    )


@pytest.fixture(scope="session")
def golden():
    """Folder of the golden vectors."""
    return GOLDEN


@pytest.fixture(scope="session")
def read_case():
    """Read a golden case by name."""
    return _read_case


@pytest.fixture(scope="session")
def tiny_config():
    meta = json.loads((GOLDEN / "unet_tiny_image.json").read_text())
    return diffuser_from_reference(meta["config"])


@pytest.fixture(scope="session")
def tiny(tiny_config):
    """The reference's tiny model with the weights of the golden cases."""
    diffuser = Diffuser(tiny_config)
    for name, network in diffuser.networks.items():
        fill_(network, f"codi.unet_{name}.", to_reference)
    return diffuser


@pytest.fixture
def variant(tiny, tiny_config):
    """Make a copy of the tiny model with other settings."""

    def make(attention=None, dtype=None, **changes):
        diffuser = Diffuser(dataclasses.replace(tiny_config, **changes), attention=attention, dtype=dtype)
        diffuser.load_state_dict(tiny.state_dict())
        return diffuser

    return make


@pytest.fixture
def streams():
    """Inputs of the case with three streams."""
    case = _read_case("unet_tiny_joint_image_text_audio")
    return case.latents, case.timesteps, case.context
