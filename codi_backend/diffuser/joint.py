"""The joint forward pass: several streams denoised together, each hearing the others (SPEC section 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import MAX_SCALE, require_number, require_shares
from ..config import DiffuserConfig
from ..diffusion import eps_from_v
from ..latent_shapes import MAX_FRAMES, multiple_of
from ..modality import MODALITIES, modality
from .factory import AttentionFunction, Factory
from .factory import attention as default_attention
from .layers import Sources
from .slots import Contexts, ContextSet, Lent, lend
from .unet import TimeEmbedding, UNet

ALIGNMENTS = ("paper", "released", "none")

Strength = float | Mapping[tuple[str, str], float]

_FRAMES_AT_ONCE = 128


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
            self._share(Factory(operations, dtype, device, attention or default_attention))

    def _share(self, make: Factory) -> None:
        """Make what the networks share: a set of transformers for each kind of context, and the time embedding."""
        first, *others = self.networks.values()

        def form(network: UNet) -> tuple:
            config = network.config
            return network.slots, config.model_channels, config.context_dim, config.num_heads

        if any(form(network) != form(first) for network in others):
            raise ValueError(
                "The networks cannot share transformers: give them equal model_channels, channel_mult, num_res_blocks, "
                "attention, num_heads and context_dim."
            )
        _, width, context_dim, heads = form(first)
        for kind in self.config.contexts:
            self.context_sets[kind] = ContextSet(first.slots, context_dim, heads, make)
        self.time_embed = TimeEmbedding(width, make)

    @property
    def slots(self) -> int:
        """How many transformers a set has; 0 where the networks have their own."""
        return len(next(iter(self.networks.values())).slots)

    def forward(
        self,
        latents: Mapping[str, Tensor],
        timesteps: Tensor,
        context: Tensor | Contexts,
        *,
        drawn: Sequence[int] | None = None,
        alignment: str = "paper",
        strength: Strength = 1.0,
        alignment_scale: float = 1.0,
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
        context : Tensor, or sequence of (str, Tensor, float)
            Prompt tokens, ``[B, L, context_dim]``. Where the networks share transformers (`DiffuserConfig.contexts`):
            kind, tokens and ratio of each context. Each context's transformers work on the same features, and what they
            give is averaged by the ratios, whatever these sum to (SPEC_VD section 3, mixing "attention").
        drawn : sequence of int, optional
            For mixing "layer": for every slot, the number of the one context that fills it. See `draw_contexts`.
        alignment : {"paper", "released", "none"}
            What a stream's connectors attend to: the environment embeddings of the *other* streams; its own, as the
            released code does (SPEC quirk Q-SELF-ENV); or nothing (connectors off). One stream alone has them off, and
            so has every run with a network that was made without connectors.
        strength : float or dict of (listener, speaker) to float
            How much a listener hears of a speaker, at least 0; pairs that the dict does not name count 1. The largest
            strength of a listener gates its connectors (0: off, bit for bit as with "none"; 1: full effect), and the
            speakers' contributions are weighted by their strengths relative to it.
        alignment_scale : float
            With alignment "paper", what is predicted is led away from what a listener predicts that hears nobody, as
            classifier-free guidance does by a prompt: ``e_deaf + alignment_scale * (e_hearing - e_deaf)``. 1 is the
            prediction itself; any other scale takes a second pass through the listeners' networks.
        environment : dict of str to Tensor, optional
            Tokens of streams that speak otherwise than from their noisy latents, from `environment` or
            `clean_environment`; of the other streams they are computed here.
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
        alignment_scale = require_number(alignment_scale, "alignment_scale", -MAX_SCALE, MAX_SCALE)
        weights = self._weights(list(latents), alignment, strength)
        lent = self._lend(context, drawn)
        emb = self._embed_time(latents, timesteps)
        wanted = [name for name in latents if predict is None or name in predict]
        speakers = {speaker for name in wanted for speaker, w in weights[name].items() if w > 0}
        environment = dict(environment or {})
        for name in speakers - environment.keys():
            environment[name] = self._network(name).environment(latents[name], emb[modality(name).network])
        out = {}
        for name in wanted:
            given = latents[name], emb[modality(name).network], lent
            heard, gate = self._hear(weights[name], environment)
            out[name] = self._predict(name, *given, heard, gate)
            if alignment == "paper" and gate > 0 and alignment_scale != 1:
                out[name] = torch.lerp(self._predict(name, *given), out[name], alignment_scale)
        if self.config.prediction == "v":
            out = {name: eps_from_v(v, latents[name], timesteps) for name, v in out.items()}
        return out

    def environment(self, latents: Mapping[str, Tensor], timesteps: Tensor) -> dict[str, Tensor]:
        """Environment tokens of every stream, ``[B, T, environment_dim]``, each of length 1 (SPEC section 2, step 4).

        T is 1, or the number of time steps where a network's configuration keeps time.
        """
        self._check(latents, timesteps)
        if deaf := self.config.deaf(latents):
            raise ValueError(f"This model has no environment encoder for {', '.join(deaf)}: load a later edition.")
        emb = self._embed_time(latents, timesteps)
        return {name: self._network(name).environment(x, emb[modality(name).network]) for name, x in latents.items()}

    def clean_environment(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Environment tokens of streams without noise, for streams that are held while the others are denoised.

        Streams whose network has no environment encoder are left out: in their company nobody hears anyone.
        """
        deaf = self.config.deaf(latents)
        aligned = {name: z for name, z in latents.items() if name not in deaf}
        if not aligned:
            return {}
        like = next(iter(aligned.values()))
        return self.environment(aligned, torch.zeros(len(like), device=like.device))

    def _network(self, stream: str) -> UNet:
        return self.networks[modality(stream).network]

    def _predict(
        self, name: str, x: Tensor, emb: Tensor, context: Tensor | Lent, heard: Sources = (), gate: float = 0.0
    ) -> Tensor:
        """What a stream's network says of it. A CPU takes few videos at a time, whose features its cache can hold."""
        network = self._network(name)
        at_once = max(1, _FRAMES_AT_ONCE // x.shape[2]) if x.ndim == 5 else len(x)
        if len(x) <= at_once or x.device.type != "cpu" or not torch.is_tensor(context):
            return network(x, emb, context, heard, gate)
        pieces = [slice(first, first + at_once) for first in range(0, len(x), at_once)]
        return torch.cat(
            [network(x[s], emb[s], context[s], [(tokens[s], w) for tokens, w in heard], gate) for s in pieces]
        )

    def _embed_time(self, latents: Mapping[str, Tensor], timesteps: Tensor) -> dict[str, Tensor]:
        """Time embedding by network: streams that share a network share it."""
        dtype = {modality(name).network: x.dtype for name, x in latents.items()}
        return {name: (self.time_embed or self.networks[name].time_embed)(timesteps, dtype[name]) for name in dtype}

    def _lend(self, context: Tensor | Contexts, drawn: Sequence[int] | None) -> Tensor | Lent:
        """What the networks attend to: the context itself, or what fills their slots."""
        if torch.is_tensor(context):
            return context
        if drawn is not None and (len(drawn) != self.slots or not all(0 <= number < len(context) for number in drawn)):
            raise ValueError(
                f"The draw {list(drawn)} does not fit: name one of the {len(context)} contexts, from 0 on, for each of "
                f"{self.slots} slots."
            )
        return lend(self.context_sets, context, self.slots, drawn)

    def _weights(self, streams: list[str], alignment: str, strength: Strength) -> dict[str, dict[str, float]]:
        """For each listener, how much it hears of whom."""
        if alignment not in ALIGNMENTS:
            raise ValueError(f"There is no alignment {alignment!r}; choose from {', '.join(ALIGNMENTS)}.")
        given = strength if isinstance(strength, Mapping) else {}
        default = 1.0 if isinstance(strength, Mapping) else require_number(strength, "strength", 0, MAX_SCALE)
        if strange := sorted({name for pair in given for name in pair} - MODALITIES.keys()):
            raise ValueError(f"strength names {', '.join(strange)}; its keys are pairs of {', '.join(MODALITIES)}.")
        given = {pair: require_number(value, "strength", 0, MAX_SCALE) for pair, value in given.items()}
        if len(streams) < 2 or self.config.deaf(streams):
            alignment = "none"
        return {
            listener: {
                speaker: given.get((listener, speaker), default)
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
        """The tokens of a context by what to call them in messages; checks that there are layers for each."""
        sets = ", ".join(self.context_sets)
        if torch.is_tensor(context):
            if sets:
                raise ValueError(f"This model has layers for each kind of context ({sets}): say of which kind it is.")
            return {"context": context}
        if not sets:
            raise ValueError("This model has no layers for kinds of context: give prompt tokens alone.")
        if strange := [kind for kind, *_ in context if kind not in self.context_sets]:
            raise ValueError(f"This model has no layers for {strange[0]} contexts; choose from {sets}.")
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
