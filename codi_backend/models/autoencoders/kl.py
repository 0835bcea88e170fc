"""The image KL-VAE and the mel VAE, both on diffusers' `AutoencoderKL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...checks.inputs import as_rate
from ...config import AudioAutoencoderConfig, ImageAutoencoderConfig
from ...modalities import audio_steps, downscale, step_samples
from .audio_dsp import resample
from .mel import LogMel
from .vocoder import Vocoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


def _autoencoder_kl(channels: int, config: ImageAutoencoderConfig | AudioAutoencoderConfig) -> nn.Module:
    from diffusers import AutoencoderKL

    levels = len(config.channels)
    channels *= config.patch**2
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=config.latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_groups,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )


class ImageAutoencoder(nn.Module):
    """Images <-> latents (SPEC section 5.1), in VAE units; the diffuser's latents are `scale_factor` times these.

    Videos, with an axis of frames after the channels, are processed frame by frame.
    """

    def __init__(self, config: ImageAutoencoderConfig):
        super().__init__()
        self.config = config
        self.downscale = downscale(config)
        self.vae = _autoencoder_kl(3, config)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode images: ``[B, 3, H, W]`` in 0..1 -> ``[B, C, H / downscale, W / downscale]``.

        The mean of the posterior, or a sample if a generator is given. `ValueError` if H or W is not a multiple
        of `downscale`.
        """
        height, width = pixels.shape[-2:]
        if height % self.downscale or width % self.downscale:
            raise ValueError(
                f"An image of {width} x {height} pixels cannot be encoded: "
                f"resize it to multiples of {self.downscale} pixels."
            )
        if pixels.ndim == 5:
            return torch.stack([self.encode(frame, generator) for frame in pixels.unbind(2)], 2)
        posterior = self.posterior(pixels)
        return posterior.mode() if generator is None else posterior.sample(generator)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode to images: ``[B, C, h, w]`` -> ``[B, 3, h * downscale, w * downscale]`` in 0..1."""
        return (self.reconstruct(latents) / 2 + 0.5).clamp(0, 1)

    def posterior(self, pixels: Tensor) -> DiagonalGaussianDistribution:
        """The posterior of the latents of ``[B, 3, H, W]`` in 0..1; training samples from it."""
        return self.vae.encode(nn.functional.pixel_unshuffle(pixels * 2 - 1, self.config.patch)).latent_dist

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Like `decode`, but in -1..1 and not clamped."""
        if latents.ndim == 5:
            return torch.stack([self.reconstruct(frame) for frame in latents.unbind(2)], 2)
        return nn.functional.pixel_shuffle(self.vae.decode(latents).sample, self.config.patch)


class AudioAutoencoder(nn.Module):
    """Audio <-> latents through log-mel spectrograms (SPEC section 5.2), time before frequency.

    Parameters
    ----------
    config : AudioAutoencoderConfig
    operations : module or class
        Layer classes of the vocoder: `torch.nn`, or one of ComfyUI's `comfy.ops`.
    """

    def __init__(self, config: AudioAutoencoderConfig, *, operations: Any = nn):
        super().__init__()
        self.config = config
        self.downscale = downscale(config)
        self.vae = _autoencoder_kl(1, config)
        self.mel = LogMel(config.mel)
        self.vocoder = Vocoder(config.vocoder, config.mel.bands, operations=operations) if config.vocoder else None

    def encode(
        self,
        waveform: Tensor,
        sample_rate: int | None = None,
        generator: torch.Generator | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Encode mono audio: ``[B, 1, N]`` in -1..1 -> ``[B, C, T, F]``.

        Parameters
        ----------
        waveform : Tensor
        sample_rate : int, optional
            In Hz; the model's own by default.
        generator : torch.Generator, optional
            Sample from the posterior instead of taking its mean.
        steps : int, optional
            T: longer audio is truncated, shorter audio is padded with silence. By default the steps that the audio
            needs, rounded up; with `released_processing`, those of `config.seconds`.

        Raises
        ------
        ValueError
            For more than one channel or empty audio.
        """
        if waveform.ndim != 3 or waveform.shape[1] != 1:
            raise ValueError(
                f"The audio to encode must be mono, [B, 1, N], not {list(waveform.shape)}: average its channels first."
            )
        if waveform.numel() == 0:
            raise ValueError("The audio is empty: give at least one sample.")
        own = self.config.mel.sample_rate
        waveform = resample(waveform, own if sample_rate is None else as_rate(sample_rate), own)
        if self.config.released_processing:
            waveform = waveform - waveform.mean(-1, keepdim=True)
            waveform = 0.5 * waveform / (waveform.abs().amax(-1, keepdim=True) + 1e-8)
        if steps is not None or not self.config.released_processing:
            length = (steps or audio_steps(waveform.shape[-1], self.config)) * step_samples(self.config)
        else:
            length = round(self.config.seconds * self.config.mel.sample_rate)
        log_mel = self.mel(nn.functional.pad(waveform, (0, length - waveform.shape[-1])))
        posterior = self.posterior(log_mel.to(waveform.dtype))
        return posterior.mode() if generator is None else posterior.sample(generator)

    def posterior(self, log_mel: Tensor) -> DiagonalGaussianDistribution:
        """The posterior of the latents of a log-mel ``[B, 1, frames, bands]``; training samples from it."""
        mel = (log_mel - self.config.mel_mean) / self.config.mel_std
        return self.vae.encode(nn.functional.pixel_unshuffle(mel, self.config.patch)).latent_dist

    def decode_mel(self, latents: Tensor) -> Tensor:
        """Decode to a log-mel: ``[B, C, T, F]`` -> ``[B, 1, T * downscale, F * downscale]``."""
        mel = nn.functional.pixel_shuffle(self.vae.decode(latents).sample, self.config.patch)
        return mel * self.config.mel_std + self.config.mel_mean

    def decode(self, latents: Tensor) -> Tensor:
        """Decode to mono audio: ``[B, C, T, F]`` -> ``[B, 1, N]`` in -1..1 at `config.mel.sample_rate`.

        N is the duration of the log-mel in samples; a vocoder may add a few samples (`Vocoder.forward`).
        """
        if self.config.released_processing and latents.abs().amax() * self.config.scale_factor > 100:
            latents = latents.clamp(-10 / self.config.scale_factor, 10 / self.config.scale_factor)
        log_mel = self.decode_mel(latents)
        return self.mel.invert(log_mel).clamp(-1, 1) if self.vocoder is None else self.vocoder(log_mel)
