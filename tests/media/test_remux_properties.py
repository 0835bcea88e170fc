"""Films with any audio at any place: the video is the same, the audio is where it belongs and does not clip."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi_backend.media.read import probe, read_audio
from codi_backend.media.remux import write_film
from codi_backend.media.soundtrack import Soundtrack
from codi_backend.media.write import save_video


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A second each: with a tone of its own, and without audio."""
    folder = tmp_path_factory.mktemp("films")
    tone = 0.7 * torch.sin(2 * torch.pi * 300 * torch.arange(16000) / 16000)[None]
    frames = torch.linspace(0, 1, 10)[None, :, None, None].expand(3, -1, 32, 32)
    save_video(folder / "loud.mp4", frames, 10.0, tone, 16000)
    save_video(folder / "mute.mp4", frames, 10.0)
    return folder


@pytest.mark.property
@given(
    st.sampled_from(["loud.mp4", "mute.mp4"]),
    st.floats(0, 1.2),
    st.floats(0.02, 1.5),
    st.floats(0, 0.9),
    st.sampled_from([8000, 16000, 22050, 44100, 48000, 12345]),
    st.booleans(),
)
def test_any_audio(films, name, start, seconds, level, rate, keep):
    new = level * torch.sin(2 * torch.pi * 1000 / rate * torch.arange(max(1, round(seconds * rate))))[None]
    with tempfile.TemporaryDirectory() as folder:
        film = write_film(Path(folder) / "film", films / name, new, rate, start=start, keep_sound=keep)
        info = probe(film.path)
        samples, got = read_audio(film.path)
    assert info.video_seconds == pytest.approx(1, abs=1e-3) and info.audio_seconds == pytest.approx(1, abs=2e-3)
    assert film.begin <= film.end <= film.seconds
    assert (film.begin, film.end) == pytest.approx((min(start, 1), min(1, start + seconds)), abs=1e-4)
    soundtrack = Soundtrack(new, rate, start, 1.0, films / name if keep else None, None, 0.0)
    peak = max(float(np.abs(block).max()) for block in soundtrack.blocks())
    assert peak <= (0.8901 if keep and name == "loud.mp4" else 1)
    assert float(samples.abs().max()) < 1.25 * peak + 0.02  # AAC overshoots where audio is cut off
    if name == "mute.mp4" or not keep:
        at = np.arange(samples.shape[-1]) / got
        inside = (at > film.begin + 0.02) & (at < film.end - 0.02)
        outside = (at < film.begin - 0.05) | (at > film.end + 0.05)
        if inside.sum() > got / 50:
            assert float(samples[0][inside].square().mean().sqrt()) * 2**0.5 == pytest.approx(level, abs=0.05)
        assert float(samples[0][outside].abs().max() if outside.any() else 0) < 0.05
