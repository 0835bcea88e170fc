"""The coupler among the models of ComfyUI's memory manager, and its corrections of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...codi_backend.modalities import MODALITIES, scale_factor
from ...codi_backend.models.coupler import Coupler, EnvironmentCoupler
from ...codi_backend.models.diffuser import Diffuser
from ...codi_backend.sampling.coupling import corrections
from .coupled_stream import Prediction, Stream

# Ratio of noise to clean latents beyond which nothing is left of these.
MAX_LEVEL = 1000.0
# The modules of a network that environment tokens come from.
ENCODER_PARTS = ("time_embed", "environment_encoder")


class CouplerModel:
    """What a CODI_COUPLER socket carries: a coupler with its `ModelPatcher`.

    Attributes
    ----------
    coupler : Coupler or EnvironmentCoupler
    record : dict
        The training record, which is saved with it.
    """

    def __init__(self, coupler: Coupler | EnvironmentCoupler, record: dict[str, Any] | None = None):
        self.coupler, self.record = coupler.requires_grad_(False).eval(), record or {}
        self.patcher = ModelPatcher(coupler, mm.get_torch_device(), mm.unet_offload_device())

    @classmethod
    def from_codi(cls, patcher: ModelPatcher) -> CouplerModel:
        """Copies of the environment encoders of a CoDi MODEL, without its patches.

        `ValueError` about the input `model` if it has none.
        """
        config, prefix = patcher.model.codi_config, "diffusion_model.diffuser."
        aligned = {name: network for name, network in config.diffuser.networks.items() if network.aligned}
        streams = [row.name for row in MODALITIES.values() if row.network in aligned]
        streams = [name for name in streams if name != "video" or aligned[MODALITIES[name].network].temporal]
        if len(streams) < 2:
            raise ValueError(
                f"model: {config.name!r} has no environment encoders of two streams; load all networks of a model that "
                "has them."
            )
        state = {key: backup.weight for key, backup in patcher.backup.items()}
        state = patcher.model.state_dict() | state
        # Outside inference mode, in which the MODEL's tensors were made and nothing can be differentiated.
        with torch.inference_mode(False):
            with torch.device("meta"):
                diffuser = Diffuser(config.diffuser.only(aligned))
            for network in diffuser.networks.values():
                for name, _ in list(network.named_children()):
                    if name not in ENCODER_PARTS:
                        delattr(network, name)
            weights = {key: state[prefix + key].to("cpu", torch.float32, copy=True) for key in diffuser.state_dict()}
            diffuser.load_state_dict(weights, assign=True)
        return cls(Coupler.from_codi(diffuser, {name: scale_factor(config, name) for name in streams}))

    def load(self) -> None:
        """Load it as a whole: it is small, and its layers cannot run from another device."""
        # Parameters moved in inference mode could not be differentiated through.
        with torch.inference_mode(False), torch.no_grad():
            mm.load_models_gpu([self.patcher], force_full_load=True)

    def match(self, shapes: Sequence[Sequence[int]]) -> list[int]:
        """The latent space of each stream. `ValueError` about the input `coupler` if one fits none."""
        try:
            return self.coupler.match(shapes)
        except ValueError as error:
            reason = str(error).removesuffix(".")
            raise ValueError(f"coupler: {reason}, or disconnect the coupler and connect another one.") from error


@dataclass
class Coupling:
    """A coupler at work in a run.

    Parameters
    ----------
    model : CouplerModel
    streams : sequence of Stream
        All of them, held ones too.
    weight : float
    start, end : float
        The lead's sigmas between which it acts.
    """

    model: CouplerModel
    streams: Sequence[Stream]
    weight: float
    start: float
    end: float

    def __post_init__(self):
        self._spaces = self.model.match([stream.latent.shape for stream in self.streams])
        self._scales = [_scale(stream) for stream in self.streams]

    def correct(self, predictions: Sequence[Prediction], sigma: Tensor) -> None:
        """Add the correction to each prediction, unless `sigma` ``[B]`` of the lead is outside its interval."""
        if not self.end <= float(sigma[0]) <= self.start:
            return
        by_stream = {id(p.stream): p for p in predictions}
        levels = [p.stream.convention.level(p.sigma[:1]) for p in predictions]
        if max(map(float, levels)) > MAX_LEVEL:
            return
        if self.model.patcher not in mm.loaded_models():
            self.model.load()
        found = [self._source(stream, scale, by_stream.get(id(stream))) for stream, scale in self._rows()]
        latents, sigmas = zip(*found)
        added = corrections(self.model.coupler, self._spaces, latents, sigmas, self.weight)
        for stream, correction in zip(self.streams, added):
            if (prediction := by_stream.get(id(stream))) is not None:
                model, z = stream.patcher.model, prediction.denoised
                unscaled = model.process_latent_out(z) + correction.to(z)
                prediction.denoised = model.process_latent_in(unscaled)

    def _rows(self):
        return zip(self.streams, self._scales)

    def _source(self, stream: Stream, scale: float, prediction: Prediction | None) -> tuple[Tensor, float]:
        """A stream's latent, clean + sigma * noise in VAE units, with its sigma; 0 if it is held."""
        if prediction is None:
            latent, sigma = stream.latent, 0.0
        else:
            convention, sigma = stream.convention, prediction.sigma[:1]
            latent = prediction.latent / convention.share(sigma) if convention.flow else prediction.latent
            latent = stream.patcher.model.process_latent_out(latent)
            sigma = float(convention.level(sigma)) * convention.data / scale
        return latent.to(self.model.patcher.load_device, torch.float32), sigma


def _scale(stream: Stream) -> float:
    """The factor between latents in VAE units and those of the model, averaged where channels have their own."""
    one = torch.ones(1, *stream.latent.shape[1:])
    process = stream.patcher.model.process_latent_out
    return 1 / float((process(one) - process(torch.zeros_like(one))).abs().mean())
