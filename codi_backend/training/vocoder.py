"""Stage 1, last part: a small HiFi-GAN that plays the mel VAE's log-mels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..autoencoders import AudioAutoencoder
from ..data import ShapesAndChimes
from .loop import Stage

_FRAMES = 50  # of log-mel in a training segment
_MEL_WEIGHT, _FEATURE_WEIGHT = 45.0, 2.0  # HiFi-GAN's
_SPECTRUM_WEIGHT = 15.0
_SPECTRUM_SIZES = (256, 1024, 2048)  # samples; the longest tells partials apart that one mel band holds
_SPECTRUM_FLOOR = 3e-4  # of full scale; what is fainter is silence
_PERIODS = (2, 3, 5, 7, 11)
_SCALES = (1, 2, 4)
_SLOPE = 0.1

_Judgement = list[tuple[Tensor, list[Tensor]]]


class VocoderStage(Stage):
    """Spectral distances plus a least-squares GAN on short segments of Shapes & Chimes.

    Half of the log-mels are those of the sounds, half come through the mel VAE, whose faults the vocoder so learns to
    pass over. Vocoder and discriminators learn in the same step: each one's loss sees the other as a constant, so the
    sum of both is one loss for one optimizer.

    Parameters
    ----------
    autoencoder : AudioAutoencoder
        Its mel VAE is trained and stays as it is; its vocoder is trained here. `ValueError` if it has none, or one that
        does not give `hop` samples a frame.
    """

    name = "vocoder"

    def __init__(self, autoencoder: AudioAutoencoder):
        super().__init__()
        if autoencoder.vocoder is None:
            raise ValueError("There is no vocoder to train: give the audio autoencoder's configuration one.")
        hop, made = autoencoder.config.mel.hop, autoencoder.vocoder.samples_per_frame
        if made != hop:
            raise ValueError(
                f"The vocoder makes {made} samples of a frame that lasts {hop}: "
                "choose upsampling rates whose product is the hop of the mel."
            )
        self.autoencoder = autoencoder
        autoencoder.vae.requires_grad_(False)
        self.discriminator = _Discriminator()

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        data = ShapesAndChimes((step + 1) * size, ("audio",), seed=seed)
        return torch.stack([data[i]["audio"] for i in range(step * size, (step + 1) * size)])

    def forward(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        log_mel, real = self._segments(batch, generator)
        fake = self.autoencoder.vocoder(log_mel)[..., : real.shape[-1]]

        judged_real, judged_fake = self.discriminator(real), self.discriminator(fake.detach())
        telling = sum(
            ((1 - r) ** 2).mean() + (f**2).mean() for (r, _), (f, _) in zip(judged_real, judged_fake, strict=True)
        )

        constants = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        judged_fake = functional_call(self.discriminator, constants, (fake,))
        fooling = sum(((1 - f) ** 2).mean() for f, _ in judged_fake)
        features = sum(
            F.l1_loss(f, r.detach())
            for (_, real_features), (_, fake_features) in zip(judged_real, judged_fake, strict=True)
            for r, f in zip(real_features, fake_features, strict=True)
        )
        mel = F.l1_loss(self.autoencoder.mel(fake), self.autoencoder.mel(real))
        spectrum = _spectral_distance(fake, real)
        playing = fooling + _FEATURE_WEIGHT * features + _MEL_WEIGHT * mel + _SPECTRUM_WEIGHT * spectrum
        figures = {"mel": mel, "spectrum": spectrum, "features": features, "fooling": fooling, "telling": telling}
        return playing + telling, {name: float(value.detach()) for name, value in figures.items()}

    @torch.no_grad()
    def _segments(self, sounds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sounds ``[B, 1, N]`` -> log-mels ``[B, 1, frames, bands]`` and their waveforms ``[B, 1, frames * hop]``.

        The first half of the log-mels come through the VAE.
        """
        hop, half = self.autoencoder.config.mel.hop, len(sounds) // 2
        log_mel = self.autoencoder.mel(sounds)
        log_mel = log_mel[:, :, : log_mel.shape[2] // self.autoencoder.downscale * self.autoencoder.downscale]
        if half:
            latents = self.autoencoder.posterior(log_mel[:half]).sample(generator)
            log_mel = torch.cat([self.autoencoder.decode_mel(latents), log_mel[half:]])
        frames = min(_FRAMES, log_mel.shape[2])
        first = torch.randint(log_mel.shape[2] - frames + 1, (len(sounds),), generator=generator).tolist()
        return (
            torch.stack([m[:, i : i + frames] for m, i in zip(log_mel, first, strict=True)]),
            torch.stack([s[:, i * hop : (i + frames) * hop] for s, i in zip(sounds, first, strict=True)]),
        )


def _spectral_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Mean L1 distance of log magnitudes, plus the relative distance of magnitudes, at several resolutions."""
    total = fake.new_zeros(())
    for size in _SPECTRUM_SIZES:
        window = torch.hann_window(size, device=fake.device)
        window = window / window.sum()
        f, r = (
            torch.stft(x.squeeze(1).float(), size, size // 4, window=window, return_complex=True) for x in (fake, real)
        )
        # Floors that are added, unlike those that clamp, leave a gradient in silence.
        f, r = (torch.view_as_real(x).square().sum(-1).add(1e-12).sqrt() for x in (f, r))
        f, r = f + _SPECTRUM_FLOOR, r + _SPECTRUM_FLOOR
        total = total + F.l1_loss(f.log(), r.log()) + (f - r).norm() / r.norm()
    return total / len(_SPECTRUM_SIZES)


class _Discriminator(nn.Module):
    """Small multi-period and multi-scale discriminators: scores and inner features of ``[B, 1, N]``, one of each."""

    def __init__(self):
        super().__init__()
        self.periods = nn.ModuleList([_PeriodDiscriminator(period) for period in _PERIODS])
        self.scales = nn.ModuleList([_ScaleDiscriminator(scale) for scale in _SCALES])

    def forward(self, waveform: Tensor) -> _Judgement:
        return [discriminator(waveform) for discriminator in (*self.periods, *self.scales)]


class _PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample."""

    def __init__(self, period: int, channels: tuple[int, ...] = (1, 16, 32, 64, 64)):
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList([nn.Conv1d(i, o, 5, 3, padding=2) for i, o in pairwise(channels)])
        self.score = nn.Conv1d(channels[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        whole = F.pad(waveform, (0, -waveform.shape[-1] % self.period), mode="reflect")
        # The phases of the period go with the batch.
        phases = whole.unflatten(-1, (-1, self.period)).permute(0, 3, 1, 2).flatten(0, 1)
        return _judge(phases, self.convs, self.score)


class _ScaleDiscriminator(nn.Module):
    """Looks at the waveform averaged over `scale` samples."""

    def __init__(self, scale: int, channels: tuple[int, ...] = (1, 16, 32, 64, 64)):
        super().__init__()
        self.scale = scale
        self.convs = nn.ModuleList([nn.Conv1d(i, o, 15, 4, padding=7) for i, o in pairwise(channels)])
        self.score = nn.Conv1d(channels[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _judge(F.avg_pool1d(waveform, self.scale), self.convs, self.score)


def _judge(h: Tensor, convs: nn.ModuleList, score: nn.Module) -> tuple[Tensor, list[Tensor]]:
    features = []
    for conv in convs:
        h = F.leaky_relu(conv(h), _SLOPE)
        features.append(h)
    return score(h), features
