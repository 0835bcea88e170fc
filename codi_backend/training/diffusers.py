"""Stage 3: single diffusers, on the prompts of any prompt encoder (paper section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modalities import modality
from ..models.diffuser import Diffuser
from ..models.diffuser.layers import TransformerBlock
from ..models.diffuser.temporal import SpatioTemporalBlock
from ..models.encoders import TextEncoder
from ..models.noise_schedule import STEPS, add_noise, alphas_cumprod
from .loop import Stage

IMAGES_PER_VIDEO = 8  # of about the same cost


class Latents(Protocol):
    """The source of batches: see `SceneLatents.batch`."""

    def batch(
        self, step: int, size: int, seed: int, streams: Sequence[str], prompts: Sequence[str], leave_out: float,
        empty: float,
    ) -> dict[str, Any]: ...  # fmt: skip


class DiffusionStage(Stage):
    """Base of the stages with a diffuser: frozen prompt encoders, one noise level for all streams, the v loss.

    The squared error of the predicted noise is weighted by the reciprocal of the signal's share, which makes it the v
    loss. The number of objects, and what streams can agree on, is decided at high noise, where the plain eps loss is
    close to 0.

    `prompt_noise` adds noise of up to that length to prompt embeddings. It makes a diffuser robust against the small
    distance that is left between the embeddings of an image, of audio and of their caption.
    """

    often_noisy = False

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: Latents,
        streams: tuple[str, ...],
        prompts: tuple[str, ...] = ("text",),
        prompt_noise: float = 0.0,
    ):
        super().__init__()
        self.diffuser = diffuser
        for p in diffuser.parameters():
            if p.ndim == 4:  # a pass over the whole module would refuse the five-dimensional kernels
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.data, self.streams, self.prompts, self.prompt_noise = data, streams, prompts, prompt_noise
        self.register_buffer("alphas", alphas_cumprod(), persistent=False)

    def noised(
        self, batch: dict[str, Any], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Noisy latents, their noise, and timesteps ``[B]``."""
        device = self.alphas.device
        streams = [name for name in self.streams if name in batch]
        size = len(batch[streams[0]])
        timesteps = self.timesteps(size, generator).to(device)
        noise = {m: torch.randn(batch[m].shape, generator=generator).to(device) for m in streams}
        noisy = {m: add_noise(batch[m].to(device), noise[m], timesteps, self.alphas) for m in streams}
        for name, latent in noisy.items():
            if latent.ndim == 4:
                noisy[name] = latent.contiguous(memory_format=torch.channels_last)
        return noisy, noise, timesteps

    def timesteps(self, size: int, generator: torch.Generator) -> Tensor:
        """The noise levels of a batch, ``[size]``; with `often_noisy` their density grows linearly with the level."""
        if not self.often_noisy:
            return torch.randint(0, STEPS, (size,), generator=generator)
        return (STEPS * torch.rand(size, generator=generator).sqrt()).long().clamp(max=STEPS - 1)

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Prompt embeddings of texts, ``[B, 1, D]``."""
        row = {text: i for i, text in enumerate(dict.fromkeys(texts))}  # many captions are equal
        tokens = self.text_encoder.tokenize(list(row)).to(self.alphas.device)
        return self.text_encoder(tokens)[[row[text] for text in texts]]

    @torch.no_grad()
    def context(self, batch: dict[str, Any], generator: torch.Generator) -> Tensor:
        """The prompt embeddings of a batch, ``[B, 1, D]``."""
        context = self.embed(batch["captions"])
        if "embedding" in batch:
            is_text = batch["is_text"].to(context.device)[:, None, None]
            context = torch.where(is_text, context, batch["embedding"].to(context)[:, None])
        if self.prompt_noise:
            noise = torch.randn(context.shape, generator=generator).to(context)
            length = self.prompt_noise * torch.rand(len(context), 1, 1, generator=generator).to(context)
            context = F.normalize(context + length / math.sqrt(context.shape[-1]) * noise, dim=-1)
        return context

    @staticmethod
    def gap(environment: Tensor, described: Tensor) -> Tensor:
        """Mean distance of environment tokens ``[B, T, D]`` from embeddings of full captions, ``[B, 1, D]``."""
        return (1 - F.cosine_similarity(environment.mean(1), described[:, 0], dim=-1)).mean()

    def error(self, predicted: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The v loss."""
        error = F.mse_loss(predicted, noise, reduction="none").flatten(1).mean(1)
        return (error / self.alphas[timesteps]).mean()


class DiffuserStage(DiffusionStage):
    """Trains one network to denoise its modality from prompts, with classifier-free dropout; connectors stay off.

    For video only the temporal blocks are trained, inside the frozen image network. With `refine` training continues
    from the network's weights; otherwise the network must be a new one.

    With `learn_prompts` the cross-attention to the prompt is trained on video too: in an image network it has no use
    for attributes that only a video has. Every third batch then has images, so that they are not forgotten.
    """

    def __init__(
        self,
        diffuser: Diffuser,
        text_encoder: TextEncoder,
        data: Latents,
        stream: str,
        prompts: tuple[str, ...] = ("text",),
        prompt_noise: float = 0.3,
        refine: bool = False,
        learn_prompts: bool = False,
    ):
        replay = ("image",) if learn_prompts and stream == "video" else ()
        super().__init__(diffuser, text_encoder, data, (stream, *replay), prompts, prompt_noise)
        self.name = f"refine_{stream}" if refine else f"diffuser_{stream}"
        self.often_noisy = stream == "video"  # the time of an onset is decided at high noise
        diffuser.requires_grad_(False)
        network = diffuser.networks[modality(stream).network].requires_grad_(True)
        for part in alignment_parts(network):
            part.requires_grad_(False)
        of_frames = set(temporal_parameters(network))
        for p in network.parameters():
            p.requires_grad_(p.requires_grad and (p in of_frames) == (stream == "video"))
        for p in prompt_parameters(network) if replay else ():
            p.requires_grad_(True)
        if not refine and stream != "video":
            _scale_token_values(network)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        stream, *replay = self.streams
        if replay and step % 3 == 2:
            stream, size = replay[0], IMAGES_PER_VIDEO * size
        return self.data.batch(step, size, seed, (stream,), self.prompts, leave_out=0.25, empty=0.1)

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noisy, noise, timesteps = self.noised(batch, generator)
        predicted = self.diffuser(noisy, timesteps, self.context(batch, generator))
        (stream,) = predicted
        error = self.error(predicted[stream], noise[stream], timesteps)
        return error, {stream: float(error.detach())} if len(self.streams) > 1 else {}


def temporal_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that act on video only."""
    return [p for block in module.modules() if isinstance(block, SpatioTemporalBlock) for p in block.parameters()]


def prompt_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The cross-attention parameters that a prompt of one token uses, without those of connectors."""
    elsewhere = {id(p) for part in alignment_parts(network) for p in part.parameters()}
    parts = (
        part for m in network.modules() if isinstance(m, TransformerBlock) for part in (m.attn2.to_v, m.attn2.to_out)
    )
    return [p for part in parts for p in part.parameters() if id(p) not in elsewhere]


def alignment_parts(network: nn.Module) -> tuple[nn.Module, ...]:
    """The parts that latent alignment alone trains."""
    return network.environment_encoder, *connectors(network)


def connectors(network: nn.Module) -> tuple[nn.Module, ...]:
    """The parts that attend to other streams."""
    return network.temporal_connectors, network.input_connectors, network.output_connectors


@torch.no_grad()
def _scale_token_values(network: nn.Module) -> None:
    """Scale value projections by sqrt(D): prompt and environment tokens have length 1, not variance 1."""
    for name, module in network.named_modules():
        if name.endswith("attn2.to_v"):
            module.weight.mul_(math.sqrt(module.weight.shape[1]))
