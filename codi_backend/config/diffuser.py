"""Configurations of the diffuser networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field

from ..modalities import modality


@dataclass(frozen=True)
class UNetConfig:
    """One diffuser network (SPEC section 2.1; the text network: section 2.3).

    The tuples run over the resolution levels, finest first. `environment_*` describe the environment encoder, whose
    first convolution is half as wide as `model_channels`.

    Attributes
    ----------
    environment_time : {None, "frames", "rows"}
        Time resolution of the environment tokens: None pools over time, as published; otherwise there is one token per
        frame of a video, or per row of the feature map, whose rows are time steps of audio.
    temporal_connectors : int
        Number of blocks of attention over time that process the tokens of a source stream before the connectors attend
        to them, if target and source have a time axis; none as published.
    text_positions : int or None
        For the text network, the number of positions of every feature (`second_dim`, 4 in the published one).
    temporal : bool
        Whether every residual block is followed by a spatio-temporal block, which applies to 5-D latents only.
    clip_attention : tuple of bool
        Resolution levels at which spatio-temporal blocks also attend to every place in every frame; none as published.
    temporal_norm : {"frames", "channels"}
        Axis of the normalisation in the temporal attention. "frames", as published (SPEC section 2.2), removes what is
        constant over the video, such as the content of the prompt. The environment encoder has no prompt and encodes
        changes, so it always uses "frames".
    """

    in_channels: int
    model_channels: int
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (True, True, True, False)
    connector: tuple[bool, ...] = (True, True, True, False)
    num_heads: int = 8
    context_dim: int = 768
    environment_dim: int = 1280
    environment_mult: tuple[int, ...] = (1, 2, 4)
    environment_res_blocks: tuple[int, ...] = (1, 1, 1)
    environment_time: str | None = None
    temporal_connectors: int = 0
    temporal: bool = False
    temporal_norm: str = "frames"
    clip_attention: tuple[bool, ...] = (False, False, False, False)
    text_positions: int | None = None

    @property
    def aligned(self) -> bool:
        """Whether the network has connectors, and thus an environment encoder."""
        return any(self.connector)


@dataclass(frozen=True)
class DiffuserConfig:
    """The diffuser: one network per latent space, and what the networks share.

    Attributes
    ----------
    networks : dict of str to UNetConfig
        Keys are `Modality.network` names.
    contexts : tuple of str
        Kinds of context, such as ("text", "image"). All networks share one set of transformers per kind, and a time
        embedding (Versatile Diffusion, SPEC_VD section 2). Empty: every network has its own transformers and time
        embedding (CoDi).
    middle_as_first_skip : bool
        Released quirk Q-SKIP-ALIAS (SPEC section 2): the first decoder block gets the middle block's output twice.
    prediction : {"eps", "v"}
        Parameterization of the networks' output. The diffuser returns the noise (eps) in either case. At high noise,
        eps needs an exact copy of the noisy input, which a small network cannot make, and v does not.
    latent_means : dict of str to tuple of float
        By modality, the mean of each channel of the scaled training latents; 0 if not given, as published.
        See `codi_backend.models.noise_schedule.mean_latent`.
    """

    networks: dict[str, UNetConfig] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()
    middle_as_first_skip: bool = False
    prediction: str = "eps"
    latent_means: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def only(self, networks: Collection[str], contexts: Collection[str] | None = None) -> DiffuserConfig:
        """Reduce the diffuser to some of its networks and, if given, some of its kinds of context."""
        kept = {name: network for name, network in self.networks.items() if name in networks}
        kinds = tuple(kind for kind in self.contexts if contexts is None or kind in contexts)
        return dataclasses.replace(self, networks=kept, contexts=kinds)

    def unaligned(self, streams: Collection[str]) -> list[str]:
        """The streams, named by modality, whose networks have no latent alignment."""
        return [name for name in streams if not self.networks[modality(name).network].aligned]
