"""The joint forward pass: streams are denoised together and attend to each other (SPEC section 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...checks.numbers import MAX_SCALE, require_number, require_shares
from ...config import DiffuserConfig
from ...modalities import MAX_FRAMES, MODALITIES, modality, multiple_of
from ..layer_factory import AttentionFunction, LayerFactory
from ..layer_factory import attention as default_attention
from ..noise_schedule import eps_from_v
from .layers import Sources
from .shared_attention import Contexts, ContextSet, SharedLayers, assign_shared
from .unet import TimeEmbedding, UNet

ALIGNMENTS = ("paper", "released", "none")

Strength = float | Mapping[tuple[str, str], float]

_FRAMES_AT_ONCE = 128


class Diffuser(nn.Module):
    """The diffusion networks of a model, with latent alignment between their streams.

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
                    shared=bool(config.contexts),
                    middle_as_first_skip=config.middle_as_first_skip,
                    operations=operations,
                    dtype=dtype,
                    device=device,
                    attention=attention,
                )
                for name, network in config.networks.items()
            }
        )
        self.context_sets = nn.ModuleDict()
        self.time_embed: TimeEmbedding | None = None
        if config.contexts and config.networks:
            self._share(LayerFactory(operations, dtype, device, attention or default_attention))

    def _share(self, factory: LayerFactory) -> None:
        """Build the shared layers: a set of transformers for each kind of context, and the time embedding."""
        first, *others = self.networks.values()

        def form(network: UNet) -> tuple:
            config = network.config
            return network.shared_widths, config.model_channels, config.context_dim, config.num_heads

        if any(form(network) != form(first) for network in others):
            raise ValueError(
                "The networks cannot share transformers: give them equal model_channels, channel_mult, num_res_blocks, "
                "attention, num_heads and context_dim."
            )
        _, width, context_dim, heads = form(first)
        for kind in self.config.contexts:
            self.context_sets[kind] = ContextSet(first.shared_widths, context_dim, heads, factory)
        self.time_embed = TimeEmbedding(width, factory)

    @property
    def num_shared_layers(self) -> int:
        """Number of shared cross-attention layers of each network; 0 if networks have their own transformers."""
        return len(next(iter(self.networks.values())).shared_widths)

    def forward(
        self,
        latents: Mapping[str, Tensor],
        timesteps: Tensor,
        context: Tensor | Contexts,
        *,
        drawn: Sequence[int] | None = None,
        alignment: str = "paper",
        strength: Strength = 1.0,
        modality_guidance: float = 1.0,
        environment: Mapping[str, Tensor] | None = None,
        predict: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Predict the noise in every stream.

        Parameters
        ----------
        latents : dict of str to Tensor
            Noisy latents by modality, shaped as in `codi_backend.modalities`, with a common batch size B.
        timesteps : Tensor
            ``[B]``, integer or fractional, in 0..999.
        context : Tensor, or sequence of (str, Tensor, float)
            Prompt tokens, ``[B, L, context_dim]``. If the networks share transformers (`DiffuserConfig.contexts`):
            kind, tokens and ratio of each context. The transformers of all contexts take the same features, and their
            outputs are averaged by the normalised ratios (SPEC_VD section 3, mixing "attention").
        drawn : sequence of int, optional
            For mixing "layer": the index of the context that each shared layer attends to. See `draw_contexts`.
        alignment : {"paper", "released", "none"}
            Cross-attention context of a stream's connectors: the environment tokens of the *other* streams; its own, as
            in the released code (SPEC quirk Q-SELF-ENV); or none (connectors off). The connectors are also off for a
            single stream, and if any network was built without them.
        strength : float or dict of (target, source) to float
            Strength of a source stream in a target stream, at least 0; pairs missing in the dict have 1. A target's
            largest strength gates its connectors (0: off, bit for bit as with "none"; 1: full effect). The sources'
            contributions are weighted by their strengths relative to it.
        modality_guidance : float
            Modality guidance scale for alignment "paper": classifier-free guidance with the other streams as the
            condition, ``e_unaligned + modality_guidance * (e_aligned - e_unaligned)``. Scales other than 1 take a
            second pass through the networks of the targets.
        environment : dict of str to Tensor, optional
            Environment tokens of source streams, from `environment` or `clean_environment`. Those of the other sources
            are computed from their noisy latents.
        predict : collection of str, optional
            Streams whose noise is predicted; the others are sources only. All by default.

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
        modality_guidance = require_number(modality_guidance, "modality_guidance", -MAX_SCALE, MAX_SCALE)
        weights = self._weights(list(latents), alignment, strength)
        shared_layers = self._assign_shared(context, drawn)
        emb = self._embed_time(latents, timesteps)
        predicted = [name for name in latents if predict is None or name in predict]
        sources = {source for name in predicted for source, w in weights[name].items() if w > 0}
        environment = dict(environment or {})
        for name in sources - environment.keys():
            environment[name] = self._network(name).environment(latents[name], emb[modality(name).network])
        out = {}
        for name in predicted:
            given = latents[name], emb[modality(name).network], shared_layers
            attended, gate = self._sources(weights[name], environment)
            out[name] = self._predict(name, *given, attended, gate)
            if alignment == "paper" and gate > 0 and modality_guidance != 1:
                out[name] = torch.lerp(self._predict(name, *given), out[name], modality_guidance)
        if self.config.prediction == "v":
            out = {name: eps_from_v(v, latents[name], timesteps) for name, v in out.items()}
        return out

    def environment(self, latents: Mapping[str, Tensor], timesteps: Tensor) -> dict[str, Tensor]:
        """Environment tokens of every stream, ``[B, T, environment_dim]``, each of length 1 (SPEC section 2, step 4).

        T is 1, or the number of time steps if `UNetConfig.environment_time` is set. `ValueError` for a stream whose
        network has no environment encoder.
        """
        self._check(latents, timesteps)
        if unaligned := self.config.unaligned(latents):
            raise ValueError(f"This model has no environment encoder for {', '.join(unaligned)}: load a later edition.")
        emb = self._embed_time(latents, timesteps)
        return {name: self._network(name).environment(x, emb[modality(name).network]) for name, x in latents.items()}

    def clean_environment(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Environment tokens of clean latents, for streams that are held fixed while the others are denoised.

        Streams whose network has no environment encoder are omitted; with them, alignment is off for all streams.
        """
        unaligned = self.config.unaligned(latents)
        aligned = {name: z for name, z in latents.items() if name not in unaligned}
        if not aligned:
            return {}
        like = next(iter(aligned.values()))
        return self.environment(aligned, torch.zeros(len(like), device=like.device))

    def _network(self, stream: str) -> UNet:
        return self.networks[modality(stream).network]

    def _predict(
        self,
        name: str,
        x: Tensor,
        emb: Tensor,
        context: Tensor | SharedLayers,
        attended: Sources = (),
        gate: float = 0.0,
    ) -> Tensor:
        """The prediction of a stream's network; on a CPU in parts of few videos, whose features fit its cache."""
        network = self._network(name)
        at_once = max(1, _FRAMES_AT_ONCE // x.shape[2]) if x.ndim == 5 else len(x)
        if len(x) <= at_once or x.device.type != "cpu" or not torch.is_tensor(context):
            return network(x, emb, context, attended, gate)
        pieces = [slice(first, first + at_once) for first in range(0, len(x), at_once)]
        return torch.cat(
            [network(x[s], emb[s], context[s], [(tokens[s], w) for tokens, w in attended], gate) for s in pieces]
        )

    def _embed_time(self, latents: Mapping[str, Tensor], timesteps: Tensor) -> dict[str, Tensor]:
        """Time embedding by network, which streams of one network have in common."""
        dtype = {modality(name).network: x.dtype for name, x in latents.items()}
        return {name: (self.time_embed or self.networks[name].time_embed)(timesteps, dtype[name]) for name in dtype}

    def _assign_shared(self, context: Tensor | Contexts, drawn: Sequence[int] | None) -> Tensor | SharedLayers:
        """The cross-attention context of the networks: prompt tokens, or shared transformers with their tokens."""
        if torch.is_tensor(context):
            return context
        count = self.num_shared_layers
        if drawn is not None and (len(drawn) != count or not all(0 <= index < len(context) for index in drawn)):
            raise ValueError(
                f"drawn is {list(drawn)}; give the index of one of the {len(context)} contexts, from 0 on, for each of "
                f"the {count} shared cross-attention layers."
            )
        return assign_shared(self.context_sets, context, count, drawn)

    def _weights(self, streams: list[str], alignment: str, strength: Strength) -> dict[str, dict[str, float]]:
        """Strength of each source stream, for each target stream."""
        if alignment not in ALIGNMENTS:
            raise ValueError(f"There is no alignment {alignment!r}; choose from {', '.join(ALIGNMENTS)}.")
        given = strength if isinstance(strength, Mapping) else {}
        default = 1.0 if isinstance(strength, Mapping) else require_number(strength, "strength", 0, MAX_SCALE)
        if unknown := sorted({name for pair in given for name in pair} - MODALITIES.keys()):
            raise ValueError(f"strength names {', '.join(unknown)}; its keys are pairs of {', '.join(MODALITIES)}.")
        given = {pair: require_number(value, "strength", 0, MAX_SCALE) for pair, value in given.items()}
        if len(streams) < 2 or self.config.unaligned(streams):
            alignment = "none"
        return {
            target: {
                source: given.get((target, source), default)
                for source in streams
                if (alignment == "paper" and source != target) or (alignment == "released" and source == target)
            }
            for target in streams
        }

    def _sources(self, weights: dict[str, float], environment: Mapping[str, Tensor]) -> tuple[Sources, float]:
        """Environment tokens and weights for the connectors of one target, and the connectors' gate."""
        gate = max(weights.values(), default=0.0)
        if gate == 0:
            return (), 0.0
        return [(environment[name], w / gate) for name, w in weights.items() if w > 0], gate

    def _check(
        self, latents: Mapping[str, Tensor], timesteps: Tensor, context: Tensor | Contexts | None = None
    ) -> None:
        if not latents:
            raise ValueError("There is nothing to denoise: give at least one latent.")
        for name, x in latents.items():
            self._check_stream(name, x)
        batch = {name: x.shape[0] for name, x in latents.items()} | {"timesteps": timesteps.shape[0]}
        if context is not None:
            widths = {self._network(name).config.context_dim for name in latents}
            for name, tokens in self._tokens(context).items():
                if tokens.ndim != 3 or tokens.shape[1] == 0 or {tokens.shape[-1]} != widths:
                    raise ValueError(
                        f"The {name} is {list(tokens.shape)}; give tokens [batch, count, {max(widths)}] from this "
                        "model's prompt encoders."
                    )
                batch[name] = tokens.shape[0]
        if len(set(batch.values())) > 1:
            sizes = ", ".join(f"{name} {size}" for name, size in batch.items())
            raise ValueError(f"Batch sizes differ ({sizes}); give everything the same batch size.")

    def _tokens(self, context: Tensor | Contexts) -> dict[str, Tensor]:
        """Tokens of each context by its name for messages; checks that the model has layers for each kind."""
        sets = ", ".join(self.context_sets)
        if torch.is_tensor(context):
            if sets:
                raise ValueError(
                    f"This model needs contexts with a kind ({sets}): give (kind, tokens, ratio) for each."
                )
            return {"context": context}
        if not sets:
            raise ValueError("This model does not take contexts with a kind: give the prompt tokens only.")
        if unknown := [kind for kind, *_ in context if kind not in self.context_sets]:
            raise ValueError(f"This model has no layers for {unknown[0]} contexts; choose from {sets}.")
        require_shares([ratio for *_, ratio in context], "ratios")
        return {f"{kind} context (number {i})": tokens for i, (kind, tokens, _) in enumerate(context)}

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
        factor = multiple_of(config)
        if x.ndim > 2 and any(size % factor for size in x.shape[-2:]):
            raise ValueError(
                f"The {name} latent is {x.shape[-2]} x {x.shape[-1]}; make both sizes multiples of {factor}."
            )
