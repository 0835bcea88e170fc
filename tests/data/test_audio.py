"""Audio of scenes."""

import numpy as np
import pytest

from codi_backend.data import Scene, sample_scene
from codi_backend.data.audio import render_audio
from codi_backend.data.world import PITCHES, SHAPES

RATE = 16000


def note(colour, shape, start=0.1):
    return render_audio(Scene(colour, shape, 1, "slow", start, 0.5, ((20, 20, 15),)))


def partial(wave, frequency):
    """Strength of one frequency in the 0.1 s after the attack of a note that begins at 0.1 s."""
    wave = wave[1760:3360]
    t = np.arange(len(wave)) / RATE
    return abs(np.sum(wave * np.hanning(len(wave)) * np.exp(-2j * np.pi * frequency * t)))


def level(wave, begin):
    """RMS of 20 ms."""
    first = round(begin * RATE)
    return np.sqrt(np.mean(wave[first : first + RATE // 50] ** 2))


def test_layout_and_peak():
    for i in range(30):
        scene = sample_scene(6, i, "all")
        wave = render_audio(scene)
        assert (wave.shape, wave.dtype) == ((40960,), np.float32)
        assert np.abs(wave).max() == pytest.approx(scene.peak, rel=1e-5)


def test_same_scene_same_audio():
    scene = sample_scene(6, 3)
    assert np.array_equal(render_audio(scene), render_audio(scene))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", PITCHES)
def test_strongest_partial_is_the_pitch(colour, shape):
    wave = note(colour, shape)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 4 * len(wave)))
    assert np.argmax(spectrum) * RATE / (4 * len(wave)) == pytest.approx(PITCHES[colour], abs=1)


@pytest.mark.parametrize(
    ("shape", "partials"),
    [
        ("circle", {2: 0, 3: 0, 5: 0}),
        ("square", {2: 0, 3: 1 / 3, 4: 0, 5: 1 / 5}),
        ("triangle", {2: 0, 3: 1 / 9, 4: 0, 5: 1 / 25}),
        ("heart", {2: 0.8, 3: 0.6, 4: 0.4, 5: 0}),
        ("star", {2: 0, 2.5: 0.49, 4.5: 0.49}),
        ("cross", {2: 0.44, 3: 0.26, 4: 0.17}),
    ],
)
def test_timbre(shape, partials):
    wave = note("red", shape)
    base = partial(wave, 261.63)
    for n, share in partials.items():
        assert partial(wave, n * 261.63) / base == pytest.approx(share, abs=max(0.01, 0.15 * share)), n


@pytest.mark.parametrize(("shape", "seconds"), [("circle", 0.18), ("square", 0.18), ("heart", 0.18), ("cross", 0.10)])
def test_decay(shape, seconds):
    wave = note("red", shape)
    measured = 0.2 / np.log(level(wave, 0.15) / level(wave, 0.35))
    assert measured == pytest.approx(seconds, rel=0.07)


def test_attack_lasts_10_ms():
    wave = note("purple", "circle", start=0.1)
    assert not wave[:1600].any()
    assert np.abs(wave[1600:1632]).max() < 0.25 * np.abs(wave).max()
    assert 1600 + 130 <= np.argmax(np.abs(wave)) <= 1600 + 260


def test_one_note_an_object():
    for tempo, spacing in {"slow": 0.55, "fast": 0.25}.items():
        places = tuple((3 + 20 * i, 3, 13) for i in range(3))
        wave = render_audio(Scene("blue", "cross", 3, tempo, 0.2, 0.5, places))
        for i in range(3):
            onset = 0.2 + i * spacing
            assert level(wave, onset + 0.005) > 2 * level(wave, onset - 0.02)
        tail = level(wave, 0.2 + 3 * spacing + 0.005)
        assert tail < level(wave, 0.2 + 3 * spacing - 0.02)
