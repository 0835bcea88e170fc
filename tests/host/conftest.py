"""A real ComfyUI for the tests of this folder; without one they are skipped."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from host import core_models
from host.comfy_host import Http, InProcess, find_comfyui
from host.tiny_checkpoint import save_tiny
from tiny import hosted_versatile

NO_COMFYUI = "no ComfyUI: set COMFYUI_PATH to a checkout of it"
NO_REQUIREMENTS = "ComfyUI was found, but not its requirements: pip install its requirements.txt into this environment"


@pytest.fixture(scope="session")
def comfyui():
    path = find_comfyui()
    if path is None:
        pytest.skip(NO_COMFYUI)
    if not all(map(find_spec, ("aiohttp", "alembic", "comfy_kitchen", "comfyui_frontend_package"))):
        pytest.skip(NO_REQUIREMENTS)
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    for reason in (NO_COMFYUI, NO_REQUIREMENTS):
        if report.skipped and reason in str(report.longrepr):
            # From one place, so that pytest's summary has one line about all of them.
            report.longrepr = (__file__, 1, reason)
    return report


@pytest.fixture(scope="session")
def host(comfyui, tmp_path_factory):
    """ComfyUI in this process, with random weights as `tiny` and `tiny_versatile.safetensors` in ``models/codi``."""
    host = InProcess(comfyui, tmp_path_factory.mktemp("in_process"))
    save_tiny(host.models / "tiny.safetensors")
    save_tiny(host.models / "tiny_versatile.safetensors", config=hosted_versatile())
    return host


@pytest.fixture(scope="session")
def server(comfyui, tmp_path_factory):
    server = Http(comfyui, tmp_path_factory.mktemp("http"))
    yield server
    server.close()


@pytest.fixture
def run_node(host):
    """Call a node of the pack as the executor does; returns its outputs."""

    def call(name: str, **inputs):
        with torch.inference_mode():
            return host.node(name).execute(**inputs).args

    return call


@pytest.fixture(scope="session")
def tiny(host):
    """What the loader gives for the tiny checkpoint: model, prompt encoders, VAE, audio VAE, text VAE."""
    with torch.inference_mode():
        return host.node("CoDiLoadModel").execute(checkpoint="tiny.safetensors").args


@pytest.fixture(scope="session")
def versatile(host):
    """The same for the tiny Versatile Diffusion, which has no audio VAE."""
    with torch.inference_mode():
        return host.node("CoDiLoadModel").execute(checkpoint="tiny_versatile.safetensors").args


@pytest.fixture
def prompts(run_node, tiny):
    """Positive and unconditional conditioning."""
    return run_node("CoDiPromptText", prompt_encoders=tiny[1], text="three red stars, slowly")


@pytest.fixture
def sample(host, prompts, tiny):
    """The stock KSampler, on the tiny model by default; returns the streams of the result."""

    def call(latent, model=None, seed=0, steps=4, cfg=7.5, sampler="euler", scheduler="normal", conditioning=prompts):
        positive, negative = conditioning
        with torch.inference_mode():
            (result,) = host.node("KSampler")().sample(
                model or tiny[0], seed, steps, cfg, sampler, scheduler, positive, negative, latent
            )
        return host.module("nodes.runtime.latent_packing").split(result["samples"])

    return call


@pytest.fixture
def empty(run_node, tiny):
    """An empty latent of the tiny model."""

    def call(**inputs):
        given = {"image": True, "video": False, "audio": True, "text": False}
        given |= {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 1}
        return run_node("CoDiEmptyLatent", model=tiny[0], **given | inputs)[0]

    return call


@pytest.fixture
def couple(host):
    """A coupled guider over those of a case, see `coupled_runs`."""

    def make(case, **options):
        return host.module("nodes.runtime.coupled_guider").CoupledGuider(case.guiders, **options)

    return make


@pytest.fixture
def coupler_of(host):
    """A CODI_COUPLER with random weights for the latents of small models."""

    def make(*names, seed=0):
        config, model = host.module("codi_backend.config.coupler"), host.module("codi_backend.models.coupler")
        shapes = {name: core_models.SHAPES[name] for name in names}
        spaces = tuple(
            config.LatentSpace(name, channels, core_models.AXES[name], tuple(extent), (0.0,) * channels, 1.0)
            for name, (channels, *extent) in shapes.items()
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = model.Coupler(config.CouplerConfig(spaces, width=8, blocks=1, token_dim=8))
        return host.module("nodes.runtime.coupler_model").CouplerModel(network)

    return make
