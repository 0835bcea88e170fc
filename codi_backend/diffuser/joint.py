"""The joint forward pass: several streams denoised together, each hearing the others (SPEC section 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import DiffuserConfig
from ..diffusion import eps_from_v
from ..modality import MODALITIES, modality
from .factory import AttentionFunction
from .layers import Sources
from .temporal import MAX_FRAMES
from .unet import UNet

ALIGNMENTS = ("paper", "released", "none")

Strength = float | Mapping[tuple[str, str], float]


class Diffuser(nn.Module):
    """The diffusion networks of a model, and the latent alignment between their streams.

    Parameters
    ----------
    config : DiffuserConfig
    operations : module or class
        Where layers come from: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    dtype, device
        Of the parameters.
    attention : callable, optional
        Takes ``(q, k, v, heads)`` with ``[B, N, heads * dim]`` tensors and returns ``[B, N, heads * dim]``.
    """

    def __init__(
        self,
        config: DiffuserConfig,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: AttentionFunction | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleDict(
            {
                name: UNet(
                    network,
                    middle_as_first_skip=config.middle_as_first_skip,
                    operations=operations,
                    dtype=dtype,
                    device=device,
                    attention=attention,
                )
                for name, network in config.networks.items()
            }
        )

    def forward(
        self,
        latents: Mapping[str, Tensor],
        timesteps: Tensor,
        context: Tensor,
        *,
        alignment: str = "paper",
        strength: Strength = 1.0,
        environment: Mapping[str, Tensor] | None = None,
        predict: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Predict the noise in every stream.

        Parameters
        ----------
        latents : dict of str to Tensor
            Noisy latents by modality, shaped as `codi_backend.modality` says, with a common batch size B.
        timesteps : Tensor
            ``[B]``, integer or fractional, in 0..999.
        context : Tensor
            Prompt tokens, ``[B, L, context_dim]``.
        alignment : {"paper", "released", "none"}
            What a stream's connectors attend to: the environment embeddings of the *other* streams; its own, as the
            released code does (SPEC quirk Q-SELF-ENV); or nothing (connectors off). One stream alone has them off, and
            so has every run with a network that was made without connectors.
        strength : float or dict of (listener, speaker) to float
            How much a listener hears of a speaker, at least 0; pairs that the dict does not name count 1. The largest
            strength of a listener gates its connectors (0: off, bit for bit as with "none"; 1: full effect), and the
            speakers' contributions are weighted by their strengths relative to it.
        environment : dict of str to Tensor, optional
            What `environment` returned for the same latents and timesteps, to save computing it again.
        predict : collection of str, optional
            The streams whose noise is wanted; the others are heard only. All by default.

        Returns
        -------
        dict of str to Tensor
            Shaped like `latents`.

        Raises
        ------
        ValueError
            If an argument does not fit this model or another argument.
        """
        self._check(latents, timesteps, context)
        weights = self._weights(list(latents), alignment, strength)
        emb = self._embed_time(latents, timesteps)
        wanted = [name for name in latents if predict is None or name in predict]
        speakers = {speaker for name in wanted for speaker, w in weights[name].items() if w > 0}
        environment = dict(environment or {})
        for name in speakers - environment.keys():
            environment[name] = self._network(name).environment(latents[name], emb[modality(name).network])
        out = {}
        for name in wanted:
            x = latents[name]
            heard, gate = self._hear(weights[name], environment)
            out[name] = self._network(name)(x, emb[modality(name).network], context, heard, gate)
        if self.config.prediction == "v":
            out = {name: eps_from_v(v, latents[name], timesteps) for name, v in out.items()}
        return out

    def environment(self, latents: Mapping[str, Tensor], timesteps: Tensor) -> dict[str, Tensor]:
        """Environment tokens of every stream, ``[B, T, environment_dim]``, each of length 1 (SPEC section 2, step 4).

        T is 1, or the number of time steps where a network's configuration keeps time.
        """
        self._check(latents, timesteps)
        if deaf := [name for name in latents if not self._network(name).config.aligned]:
            raise ValueError(f"This model has no environment encoder for {', '.join(deaf)}: load a later edition.")
        emb = self._embed_time(latents, timesteps)
        return {name: self._network(name).environment(x, emb[modality(name).network]) for name, x in latents.items()}

    def _network(self, stream: str) -> UNet:
        return self.networks[modality(stream).network]

    def _embed_time(self, latents: Mapping[str, Tensor], timesteps: Tensor) -> dict[str, Tensor]:
        """Time embedding by network: streams that share a network share it."""
        dtype = {modality(name).network: x.dtype for name, x in latents.items()}
        return {network: self.networks[network].embed_time(timesteps, dtype[network]) for network in dtype}

    def _weights(self, streams: list[str], alignment: str, strength: Strength) -> dict[str, dict[str, float]]:
        """For each listener, how much it hears of whom."""
        if alignment not in ALIGNMENTS:
            raise ValueError(f"There is no alignment {alignment!r}; choose from {', '.join(ALIGNMENTS)}.")
        given = strength if isinstance(strength, Mapping) else {}
        default = 1.0 if isinstance(strength, Mapping) else float(strength)
        if strange := sorted({name for pair in given for name in pair} - MODALITIES.keys()):
            raise ValueError(f"strength names {', '.join(strange)}; its keys are pairs of {', '.join(MODALITIES)}.")
        if not all(w >= 0 for w in (default, *given.values())):
            raise ValueError("strength must be 0 or more; 0 switches the connection off.")
        if len(streams) < 2 or not all(self._network(name).config.aligned for name in streams):
            alignment = "none"
        return {
            listener: {
                speaker: float(given.get((listener, speaker), default))
                for speaker in streams
                if (alignment == "paper" and speaker != listener) or (alignment == "released" and speaker == listener)
            }
            for listener in streams
        }

    def _hear(self, weights: dict[str, float], environment: Mapping[str, Tensor]) -> tuple[Sources, float]:
        """Tokens and their weights for one listener's connectors, and the connectors' gate."""
        gate = max(weights.values(), default=0.0)
        if gate == 0:
            return (), 0.0
        share = gate * (len(weights) if self.config.listen == "mean" else 1)
        return [(environment[name], w / share) for name, w in weights.items() if w > 0], gate

    def _check(self, latents: Mapping[str, Tensor], timesteps: Tensor, context: Tensor | None = None) -> None:
        if not latents:
            raise ValueError("There is nothing to denoise: give at least one latent.")
        for name, x in latents.items():
            self._check_stream(name, x)
        batch = {name: x.shape[0] for name, x in latents.items()} | {"timesteps": timesteps.shape[0]}
        if context is not None:
            batch["context"] = context.shape[0]
            widths = {self._network(name).config.context_dim for name in latents}
            if context.ndim != 3 or {context.shape[-1]} != widths:
                raise ValueError(
                    f"The context is {list(context.shape)}; give tokens [batch, count, {max(widths)}] from this "
                    "model's prompt encoders."
                )
        if len(set(batch.values())) > 1:
            sizes = ", ".join(f"{name} {size}" for name, size in batch.items())
            raise ValueError(f"Batch sizes differ ({sizes}); give everything the same batch size.")

    def _check_stream(self, name: str, x: Tensor) -> None:
        row = modality(name)
        if row.network not in self.networks:
            raise ValueError(
                f"This model has no {row.network} network, which {name} needs; load the checkpoint that contains it, "
                f"or leave {name} out."
            )
        config = self.networks[row.network].config
        if x.ndim != row.latent_rank or x.shape[1] != config.in_channels:
            raise ValueError(
                f"The {name} latent is {list(x.shape)}; give {row.latent_rank} axes with {config.in_channels} channels "
                "on the second."
            )
        if x.ndim == 5 and not config.temporal:
            raise ValueError(f"This model's {row.network} network has no temporal layers; leave {name} out.")
        if x.ndim == 5 and not 1 <= x.shape[2] <= MAX_FRAMES:
            raise ValueError(f"The {name} latent has {x.shape[2]} frames; give 1 to {MAX_FRAMES}.")
        factor = 2 ** (len(config.channel_mult) - 1)
        if x.ndim > 2 and any(size % factor for size in x.shape[-2:]):
            raise ValueError(
                f"The {name} latent is {x.shape[-2]} x {x.shape[-1]}; make both sizes multiples of {factor}."
            )
