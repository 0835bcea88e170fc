"""The model as a whole: load it, encode prompts, encode and decode latents, generate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .autoencoders import AudioAutoencoder, ImageAutoencoder
from .checkpoints import read_parts
from .conditioning import Prompt
from .config import CoDiConfig
from .diffuser import Diffuser
from .diffuser.joint import Strength
from .diffusion import stream_noise
from .modality import MODALITIES, modality
from .prompts import TextEncoder
from .sampling import sample


class CoDi(nn.Module):
    """Composable Diffusion: prompt encoders, a joint diffuser, autoencoders.

    Parts are reached as `diffuser`, ``prompt_encoders["text"]`` and ``autoencoders["image"]``. A new model has random
    weights; `load` reads trained ones.
    """

    def __init__(self, config: CoDiConfig):
        super().__init__()
        self.config = config
        self.diffuser = Diffuser(config.diffuser)
        self.prompt_encoders = nn.ModuleDict()
        self.autoencoders = nn.ModuleDict()
        if config.text_encoder:
            self.prompt_encoders["text"] = TextEncoder(config.text_encoder)
        if config.image_autoencoder:
            self.autoencoders["image"] = ImageAutoencoder(config.image_autoencoder)
        if config.audio_autoencoder:
            self.autoencoders["audio"] = AudioAutoencoder(config.audio_autoencoder)
        self.eval()

    @classmethod
    def load(cls, source: str | os.PathLike | Iterable[str | os.PathLike] = "mini") -> CoDi:
        """Load "mini", the shipped small model, or files of this pack; in single precision on the CPU.

        `FileNotFoundError` or `ValueError` with a sentence about what is wrong with the files.
        """
        checkpoint = read_parts(source)
        codi = cls(checkpoint.config)
        parts = codi.parts()
        if missing := sorted(parts.keys() - checkpoint.parts.keys()):
            raise ValueError(f"The checkpoint has no {', '.join(missing)}: add the file that holds it.")
        for name, part in parts.items():
            part.load_state_dict(checkpoint.parts[name])
        return codi

    def parts(self) -> dict[str, nn.Module]:
        """The modules that checkpoints store separately, by part name."""
        return {
            **{f"diffuser.{name}": network for name, network in self.diffuser.networks.items()},
            **{f"prompt_encoders.{name}": encoder for name, encoder in self.prompt_encoders.items()},
            **{f"autoencoders.{name}": autoencoder for name, autoencoder in self.autoencoders.items()},
        }

    @property
    def outputs(self) -> tuple[str, ...]:
        """Modalities that this model can generate."""
        return tuple(
            name
            for name, row in MODALITIES.items()
            if row.network in self.config.diffuser.networks and name in self.autoencoders
        )

    @torch.inference_mode()
    def prompt(self, name: str, content: str | Sequence[str]) -> Prompt:
        """Encode a text prompt, or several as one batch; the unconditional twin is that of the empty text."""
        modality(name)
        if name not in self.prompt_encoders:
            raise ValueError(f"This model has no {name} prompt encoder; it has {', '.join(self.prompt_encoders)}.")
        texts = [content] if isinstance(content, str) else list(content)
        if not texts:
            raise ValueError("There is no prompt: give at least one text, which may be empty.")
        encoder = self.prompt_encoders[name]
        device = encoder.text_projection.weight.device
        embeddings = encoder(encoder.tokenize([*texts, ""]).to(device))
        return Prompt(embeddings[:-1], embeddings[-1:].expand(len(texts), -1, -1))

    @torch.inference_mode()
    def encode(self, name: str, content: Tensor, sample_rate: int | None = None) -> Tensor:
        """Pixels ``[B, 3, H, W]`` in 0..1, or mono sound ``[B, 1, N]`` at `sample_rate` Hz -> latents in VAE units."""
        autoencoder = self._autoencoder(name)
        return autoencoder.encode(content, sample_rate) if name == "audio" else autoencoder.encode(content)

    @torch.inference_mode()
    def decode(self, name: str, latents: Tensor) -> Tensor:
        """Latents in VAE units -> pixels ``[B, 3, H, W]`` in 0..1, or sound ``[B, 1, N]`` in -1..1."""
        return self._autoencoder(name).decode(latents)

    def latent_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one latent of the model's own size, without the batch axis."""
        autoencoder = self._autoencoder(name)
        if name == "audio":
            return autoencoder.latent_shape(autoencoder.config.seconds)
        side = autoencoder.config.image_size // autoencoder.downscale
        return autoencoder.config.latent_channels, side, side

    def generate(
        self,
        prompts: Prompt,
        outputs: Sequence[str],
        steps: int = 20,
        guidance: float | None = None,
        seed: int = 0,
        sampler: str = "dpmpp_2m",
        alignment: str = "paper",
        strength: Strength = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Generate a set of outputs together from a batch of prompts.

        Parameters
        ----------
        prompts : Prompt
            From `prompt`; its batch size B is the number of results.
        outputs : sequence of str
            Modalities to generate; their order does not matter.
        guidance : float, optional
            Classifier-free guidance scale, the model's own by default.
        seed : int
            Fixes the noise of every stream of every result, whatever else is generated.
        sampler : {"dpmpp_2m", "ddim", "euler"}
        alignment, strength
            See `Diffuser.forward`.
        progress : callable, optional
            See `sample`.

        Returns
        -------
        dict
            ``"image"``: ``[B, 3, H, W]`` in 0..1; ``"audio"``: ``{"waveform": [B, 1, N] in -1..1, "sample_rate": int}``.

        Raises
        ------
        ValueError
            For an output that this model lacks, or an argument out of range.
        """
        latents = self.generate_latents(
            prompts, outputs, steps, guidance, seed, sampler, alignment, strength, progress
        )
        results: dict[str, Any] = {name: self.decode(name, z) for name, z in latents.items()}
        if "audio" in results:
            rate = self.autoencoders["audio"].config.mel.sample_rate
            results["audio"] = {"waveform": results["audio"], "sample_rate": rate}
        return results

    def generate_latents(
        self,
        prompts: Prompt,
        outputs: Sequence[str],
        steps: int = 20,
        guidance: float | None = None,
        seed: int = 0,
        sampler: str = "dpmpp_2m",
        alignment: str = "paper",
        strength: Strength = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Like `generate`, without the decoding: latents in VAE units by modality."""
        if not outputs:
            raise ValueError(f"No outputs were asked for: choose from {', '.join(self.outputs)}.")
        if len(set(outputs)) < len(outputs):
            raise ValueError(f"An output is named twice in {', '.join(outputs)}: name each once.")
        for name in outputs:
            modality(name)
            if name not in self.outputs:
                raise ValueError(f"This model cannot generate {name}: choose from {', '.join(self.outputs)}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"The seed {seed} is out of range: choose 0 to {2**32 - 1}.")
        batch = len(prompts.embedding)
        scaled = sample(
            self.diffuser,
            {name: stream_noise((batch, *self.latent_shape(name)), seed, name) for name in outputs},
            prompts,
            steps=steps,
            guidance=self.config.guidance if guidance is None else guidance,
            sampler=sampler,
            alignment=alignment,
            strength=strength,
            progress=progress,
        )
        return {name: z / self._autoencoder(name).config.scale_factor for name, z in scaled.items()}

    def _autoencoder(self, name: str) -> nn.Module:
        modality(name)
        if name not in self.autoencoders:
            raise ValueError(f"This model has no {name} autoencoder; it has {', '.join(self.autoencoders)}.")
        return self.autoencoders[name]
