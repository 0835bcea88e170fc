"""The configuration of a whole model, stored as JSON inside our checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .autoencoders import AudioAutoencoderConfig, ImageAutoencoderConfig, TextAutoencoderConfig
from .diffuser import DiffuserConfig
from .encoders import ClapConfig, TextEncoderConfig, VisionEncoderConfig
from .serialization import from_json


@dataclass(frozen=True)
class CoDiConfig:
    """Everything that shapes a CoDi model. A part that is None does not exist in this model.

    Attributes
    ----------
    name : str
        Shown in reports and node titles.
    guidance : float
        Default classifier-free guidance scale.
    modality_guidance : float
        Default modality guidance scale, see `AlignmentSettings`.
    auxiliary_streams : dict of str to tuple of str
        By output, the streams that are sampled beside it, see `sampling.auxiliary`.
    num_candidates : int
        Default N of best-of-N for results of several streams, see `SamplingSettings`.
    sampler : str
        Default sampler, see `codi_backend.sampling.samplers.SAMPLERS`.
    steps : int
        Default number of sampling steps.
    """

    name: str = "codi"
    diffuser: DiffuserConfig = field(default_factory=DiffuserConfig)
    text_encoder: TextEncoderConfig | None = None
    image_encoder: VisionEncoderConfig | None = None
    audio_encoder: ClapConfig | None = None
    text_autoencoder: TextAutoencoderConfig | None = None
    image_autoencoder: ImageAutoencoderConfig | None = None
    audio_autoencoder: AudioAutoencoderConfig | None = None
    guidance: float = 7.5
    modality_guidance: float = 1.0
    auxiliary_streams: dict[str, tuple[str, ...]] = field(default_factory=dict)
    num_candidates: int = 1
    sampler: str = "dpmpp_2m"
    steps: int = 20

    def sampling(
        self, steps: int | None = None, sampler: str | None = None, guidance: float | Sequence[float] | None = None
    ) -> dict[str, Any]:
        """How to sample, by name: as given, and this model's own way where nothing is."""
        given = {"steps": steps, "sampler": sampler, "guidance": guidance}
        return {name: getattr(self, name) if value is None else value for name, value in given.items()}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    # Reads a configuration in the original project's terms; set by the package, see `reference.from_reference`.
    from_reference: ClassVar[Callable[[dict[str, Any]], CoDiConfig]]

    @classmethod
    def from_json(cls, text: str) -> CoDiConfig:
        """Read what `to_json` wrote. A `ValueError` names the field that is wrong; see `serialization.from_json`."""
        return from_json(cls, text)
