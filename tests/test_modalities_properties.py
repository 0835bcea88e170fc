"""Lengths of any models: never shorter than asked for, less than a unit longer, and the same at every entry point."""

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import FOUR

from codi_backend.config import MelConfig
from codi_backend.modalities import (
    MAX_CLIP_FRAMES,
    MAX_SECONDS,
    audio_steps,
    downscale,
    latent_shape,
    lengths,
    multiple_of,
)

NUMBERS = st.one_of(st.floats(), st.integers(), st.floats(0.001, 30), st.integers(1, 40))


@st.composite
def configs(draw):
    """Models of any frame rate, mel and number of levels."""
    networks = dict(FOUR.diffuser.networks)
    levels = draw(st.integers(1, 4))
    networks["audio"] = dataclasses.replace(networks["audio"], channel_mult=(1,) * levels)
    mel = MelConfig(sample_rate=draw(st.integers(8000, 96000)), hop=draw(st.integers(32, 1024)))
    return dataclasses.replace(
        FOUR,
        diffuser=dataclasses.replace(FOUR.diffuser, networks=networks),
        image_autoencoder=dataclasses.replace(FOUR.image_autoencoder, frame_rate=draw(st.floats(0.5, 60))),
        audio_autoencoder=dataclasses.replace(
            FOUR.audio_autoencoder,
            patch=draw(st.sampled_from([1, 2, 4])),
            channels=(8,) * draw(st.integers(1, 3)),
            seconds=draw(st.floats(0.01, 20)),
            mel=mel,
        ),
    )


def unit_seconds(config):
    mel = config.audio_autoencoder.mel
    multiple = multiple_of(config.diffuser.networks["audio"])
    return multiple * downscale(config.audio_autoencoder) * mel.hop / mel.sample_rate


def audio_seconds(config, steps):
    return steps * unit_seconds(config) / multiple_of(config.diffuser.networks["audio"])


@pytest.mark.property
@given(configs(), st.floats(0.001, MAX_SECONDS))
def test_seconds(config, seconds):
    rate, samples = config.image_autoencoder.frame_rate, config.audio_autoencoder.mel.sample_rate
    steps = latent_shape(config, "audio", seconds=seconds)[1]
    assert steps % multiple_of(config.diffuser.networks["audio"]) == 0
    assert -0.51 / samples <= audio_seconds(config, steps) - seconds < unit_seconds(config) + 0.51 / samples
    frames, same = lengths(config, seconds=seconds)
    assert same == seconds and (frames == 1 or -2e-4 <= frames - seconds * rate < 1)
    # A completed length agrees with itself and is completed to itself.
    assert lengths(config, frames, seconds) == (frames, seconds)
    assert latent_shape(config, "audio", frames=frames, seconds=seconds)[1] == steps
    if frames <= MAX_CLIP_FRAMES:
        assert latent_shape(config, "video", seconds=seconds)[1] == frames
    else:
        with pytest.raises(ValueError, match="^seconds: .* frames of a video, which has at most 4096"):
            latent_shape(config, "video", seconds=seconds)
    # Audio of so many samples needs as many steps.
    multiple = multiple_of(config.diffuser.networks["audio"])
    assert audio_steps(round(seconds * samples), config.audio_autoencoder, multiple) == steps


@pytest.mark.property
@given(configs(), st.integers(1, 30))
def test_frames(config, frames):
    lasting = frames / config.image_autoencoder.frame_rate
    assert latent_shape(config, "video", frames=frames)[1] == frames
    steps = latent_shape(config, "audio", frames=frames)[1]
    half_a_sample = 0.51 / config.audio_autoencoder.mel.sample_rate
    assert -half_a_sample <= audio_seconds(config, steps) - lasting < unit_seconds(config) + half_a_sample
    assert latent_shape(config, "audio", seconds=lasting)[1] == steps
    assert latent_shape(config, "video", seconds=lasting)[1] == frames  # there and back


@pytest.mark.property
@given(configs(), st.none() | NUMBERS, st.none() | NUMBERS)
def test_any_numbers_give_a_shape_or_a_sentence(config, frames, seconds):
    try:
        shapes = [latent_shape(config, name, frames=frames, seconds=seconds) for name in ("video", "audio")]
    except ValueError as error:
        assert str(error).split(":")[0] in ("frames", "seconds", "frames, seconds")
        assert str(error).endswith(".") and ("choose" in str(error) or "give" in str(error) or "at most" in str(error))
        return
    assume(frames is not None)
    assert shapes[0][1] == frames
