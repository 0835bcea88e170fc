"""Stage 1, last part: a small HiFi-GAN from the mel VAE's log-mels to waveforms."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..models.autoencoders import AudioAutoencoder
from .loop import Stage
from .scenes import SHAPES_AND_CHIMES
from .training_data import TrainingData

_FRAMES = 50  # of log-mel in a training segment
_MEL_WEIGHT, _FEATURE_WEIGHT = 45.0, 2.0  # HiFi-GAN's
_SPECTRUM_WEIGHT = 15.0
_SPECTRUM_SIZES = (256, 1024, 2048)  # samples; the longest resolves partials that share a mel band
_SPECTRUM_FLOOR = 3e-4  # of full scale; fainter magnitudes count as silence
_PERIODS = (2, 3, 5, 7, 11)
_SCALES = (1, 2, 4)
_SLOPE = 0.1

_Scores = list[tuple[Tensor, list[Tensor]]]


class VocoderStage(Stage):
    """Spectral distances plus a least-squares GAN on short segments.

    Half of the log-mels are measured, half come through the mel VAE, so that the vocoder corrects its errors. Vocoder
    and discriminators are trained in the same step: each loss has the other network as a constant, so the sum of both
    is one loss for one optimizer.

    Parameters
    ----------
    autoencoder : AudioAutoencoder
        With a trained mel VAE, which is frozen; the vocoder is trained. `ValueError` if it has none, or one that does
        not give `hop` samples a frame.
    """

    name = "vocoder"

    def __init__(self, autoencoder: AudioAutoencoder, data: TrainingData = SHAPES_AND_CHIMES):
        super().__init__()
        self.data = data
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
        return self.data.contents("audio", step, size, seed)["contents"]

    def forward(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        log_mel, real = self._segments(batch, generator)
        fake = self.autoencoder.vocoder(log_mel)[..., : real.shape[-1]]

        scores_real, scores_fake = self.discriminator(real), self.discriminator(fake.detach())
        discriminator_loss = sum(
            ((1 - r) ** 2).mean() + (f**2).mean() for (r, _), (f, _) in zip(scores_real, scores_fake, strict=True)
        )

        constants = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        scores_fake = functional_call(self.discriminator, constants, (fake,))
        adversarial = sum(((1 - f) ** 2).mean() for f, _ in scores_fake)
        features = sum(
            F.l1_loss(f, r.detach())
            for (_, real_features), (_, fake_features) in zip(scores_real, scores_fake, strict=True)
            for r, f in zip(real_features, fake_features, strict=True)
        )
        mel = F.l1_loss(self.autoencoder.mel(fake), self.autoencoder.mel(real))
        spectrum = _spectral_distance(fake, real)
        vocoder_loss = adversarial + _FEATURE_WEIGHT * features + _MEL_WEIGHT * mel + _SPECTRUM_WEIGHT * spectrum
        figures = {
            "mel": mel,
            "spectrum": spectrum,
            "features": features,
            "adversarial": adversarial,
            "discriminator_loss": discriminator_loss,
        }
        return vocoder_loss + discriminator_loss, {name: float(value.detach()) for name, value in figures.items()}

    @torch.no_grad()
    def _segments(self, audio: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Audio ``[B, 1, N]`` -> log-mels ``[B, 1, frames, bands]`` and their waveforms ``[B, 1, frames * hop]``.

        The first half of the log-mels come through the VAE.
        """
        hop, half = self.autoencoder.config.mel.hop, len(audio) // 2
        log_mel = self.autoencoder.mel(audio)
        log_mel = log_mel[:, :, : log_mel.shape[2] // self.autoencoder.downscale * self.autoencoder.downscale]
        if half:
            latents = self.autoencoder.posterior(log_mel[:half]).sample(generator)
            log_mel = torch.cat([self.autoencoder.decode_mel(latents), log_mel[half:]])
        frames = min(_FRAMES, log_mel.shape[2])
        first = torch.randint(log_mel.shape[2] - frames + 1, (len(audio),), generator=generator).tolist()
        return (
            torch.stack([m[:, i : i + frames] for m, i in zip(log_mel, first, strict=True)]),
            torch.stack([s[:, i * hop : (i + frames) * hop] for s, i in zip(audio, first, strict=True)]),
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
        # An added floor, unlike a clamp, keeps a gradient in silence.
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

    def forward(self, waveform: Tensor) -> _Scores:
        return [discriminator(waveform) for discriminator in (*self.periods, *self.scales)]


class _PeriodDiscriminator(nn.Module):
    """Scores every `period`-th sample."""

    def __init__(self, period: int, channels: tuple[int, ...] = (1, 16, 32, 64, 64)):
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList([nn.Conv1d(i, o, 5, 3, padding=2) for i, o in pairwise(channels)])
        self.score = nn.Conv1d(channels[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        whole = F.pad(waveform, (0, -waveform.shape[-1] % self.period), mode="reflect")
        # Phases of the period become rows of the batch.
        phases = whole.unflatten(-1, (-1, self.period)).permute(0, 3, 1, 2).flatten(0, 1)
        return _score(phases, self.convs, self.score)


class _ScaleDiscriminator(nn.Module):
    """Scores the waveform averaged over `scale` samples."""

    def __init__(self, scale: int, channels: tuple[int, ...] = (1, 16, 32, 64, 64)):
        super().__init__()
        self.scale = scale
        self.convs = nn.ModuleList([nn.Conv1d(i, o, 15, 4, padding=7) for i, o in pairwise(channels)])
        self.score = nn.Conv1d(channels[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _score(F.avg_pool1d(waveform, self.scale), self.convs, self.score)


def _score(h: Tensor, convs: nn.ModuleList, score: nn.Module) -> tuple[Tensor, list[Tensor]]:
    features = []
    for conv in convs:
        h = F.leaky_relu(conv(h), _SLOPE)
        features.append(h)
    return score(h), features
