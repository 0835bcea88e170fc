"""The audio of a film: what was generated for a part of it, and what the film itself has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from torch import Tensor

from .container import audio_stream, audios, decoded, opened, packets

RATE = 48000  # Hz, at which AAC keeps to the waveform best
_BLOCK = 4096  # samples
_TOLERANCE = 0.015  # seconds; containers round stamps
_LOUDEST = 0.89  # -1 dB, which leaves encoders room


class Soundtrack:
    """Audio from time 0 to the end of a film, in blocks, so that long films need little memory.

    Parameters
    ----------
    waveform : Tensor
        The new audio, mono ``[1, N]`` in -1..1.
    sample_rate : int
        Of the new audio, in Hz.
    start, length : float
        Where it begins, and how long the film lasts, in seconds from time 0.
    film : path, optional
        The film whose own audio is mixed with the new; by default there is silence beside it. A film without audio is
        as good as none.
    track : int, optional
        Number of the film's audio track, from 1.
    begin : float
        Time 0 in the film's own stamps, in seconds.

    Attributes
    ----------
    layout : {"mono", "stereo"}
    """

    def __init__(
        self,
        waveform: Tensor,
        sample_rate: int,
        start: float,
        length: float,
        film: str | os.PathLike | None,
        track: int | None,
        begin: float,
    ):
        self.layout = "mono"
        self._film, self._track, self._begin = None, track, begin
        if film is not None:
            with opened(film, "a video") as container:
                if audios(container):
                    stream = audio_stream(container, film, track)
                    self._film = film
                    self.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self._total = round(length * RATE)
        self._first = round(start * RATE)
        self._new = _resampled(waveform, sample_rate)

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples ``[C, N]`` in -1..1 at `RATE`, block after block."""
        for block in self._mixed():
            yield np.ascontiguousarray(block * self._gain)

    @cached_property
    def _gain(self) -> float:
        if self._film is None:  # silence adds nothing
            return 1.0
        peak = max((float(np.abs(block).max()) for block in self._mixed()), default=0.0)
        return min(1.0, _LOUDEST / peak) if peak else 1.0

    def _mixed(self) -> Iterator[np.ndarray]:
        position = 0
        for block in self._bed():
            block = block[:, : self._total - position].copy()
            if not block.shape[1]:
                break
            edges = (position - self._first, position - self._first + block.shape[1])  # in the new audio
            since, until = (min(max(edge, 0), len(self._new)) for edge in edges)
            block[:, since - edges[0] : until - edges[0]] += self._new[since:until]
            position += block.shape[1]
            yield block

    def _bed(self) -> Iterator[np.ndarray]:
        """The film's own audio where there is any, and silence, without an end."""
        channels = 1 if self.layout == "mono" else 2
        position = 0
        for at, block in self._own() if self._film is not None else ():
            while position < at:
                silence = np.zeros((channels, min(_BLOCK, at - position)), np.float32)
                position += silence.shape[1]
                yield silence
            block = block[:, position - at :]
            position += block.shape[1]
            if block.shape[1]:
                yield block
        while True:
            yield np.zeros((channels, _BLOCK), np.float32)

    def _own(self) -> Iterator[tuple[int, np.ndarray]]:
        """Blocks of the film's own audio, and where each begins, in samples from time 0."""
        import av

        resampler, expected = None, 0.0
        position = 0
        with opened(self._film, "audio") as container:
            stream = audio_stream(container, self._film, self._track)
            for frame in decoded(stream, packets(container, stream)):
                since = expected if frame.time is None else frame.time - self._begin
                if resampler is None or abs(since - expected) > _TOLERANCE:
                    if resampler is not None:
                        for piece in resampler.resample(None):
                            yield position, piece.to_ndarray()
                    resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=RATE)
                    position, expected = round(since * RATE), since
                expected += frame.samples / frame.sample_rate
                frame.pts = None
                for piece in resampler.resample(frame):
                    yield position, piece.to_ndarray()
                    position += piece.samples
            for piece in resampler.resample(None) if resampler is not None else ():
                yield position, piece.to_ndarray()


def _resampled(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Mono ``[1, N]`` -> ``[M]`` at `RATE`."""
    import av

    samples = waveform.detach().float().clamp(-1, 1).cpu().numpy()
    if sample_rate == RATE:
        return samples[0]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
    return np.concatenate([piece.to_ndarray()[0] for given in (frame, None) for piece in resampler.resample(given)])
