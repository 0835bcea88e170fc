"""The judges against scenes whose attributes are known, and against what holds no scene."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from codi_backend.config import MelConfig
from codi_backend.data import sample_scene
from codi_backend.data.audio import render_audio
from codi_backend.data.images import render_image
from codi_backend.data.world import COLOURS, PITCHES, SAMPLE_RATE, SAMPLES, SHAPES, Scene
from codi_backend.evaluation.judges import JudgedAudio, JudgedImage, judge_audio, judge_image
from codi_backend.models.autoencoders import LogMel, resample

SCENES = [sample_scene(7, i, "all") for i in range(150)]
NOTHING_SEEN = JudgedImage(None, None, None)
NO_NOTES = JudgedAudio(None, None, None)


def make_image(scene, blur=0.0):
    return ndimage.gaussian_filter(render_image(scene).transpose(2, 0, 1), (0, blur, blur))


def scene_of(shape, *places, colour="red"):
    return Scene(colour, shape, len(places), "slow", 0.3, 0.5, places)


def accuracies(judged, scenes):
    """Share of right answers per attribute; one note has no tempo."""
    right = {}
    for attribute in ("colour", "shape", "count", "tempo"):
        if hasattr(judged[0], attribute):
            truth = [None if attribute == "tempo" and s.count == 1 else getattr(s, attribute) for s in scenes]
            right[attribute] = np.mean([getattr(j, attribute) == t for j, t in zip(judged, truth)])
    return right


def onset_errors(judged, scenes):
    return np.concatenate([np.subtract(j.onsets, s.onsets) for j, s in zip(judged, scenes) if j.count == s.count])


def autoencoded(pixels):
    """As soft, noisy and pale as an autoencoder's images get."""
    noise = np.random.default_rng(0).normal(0, 0.04, pixels.shape)
    return ndimage.gaussian_filter(pixels, (0, 1, 1)) * 0.9 + 0.06 + noise


@pytest.mark.parametrize(
    "spoil",
    [lambda x: x, lambda x: ndimage.gaussian_filter(x, (0, 0.7, 0.7)), autoencoded],
    ids=["clean", "blurred", "autoencoded"],
)
def test_images(spoil):
    judged = [judge_image(spoil(make_image(scene))) for scene in SCENES]
    assert min(accuracies(judged, SCENES).values()) >= 0.99
    assert not any(j.blobs for j in judged)


def test_objects_lie_where_they_were_drawn():
    scene = scene_of("square", (40, 30, 17), (5, 6, 13), colour="blue")
    judged = judge_image(torch.from_numpy(make_image(scene))).objects
    assert [(o.left, o.top, o.width, o.height) for o in judged] == [(5, 6, 13, 13), (40, 30, 17, 17)]
    assert [(o.colour, o.shape) for o in judged] == [("blue", "square")] * 2
    assert min(o.overlap for o in judged) > 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_whole_is_not_counted(shape):
    touching = judge_image(make_image(scene_of(shape, (10, 10, 16), (23, 10, 16)), blur=0.7))
    assert touching.count is None

    halved = make_image(scene_of(shape, (10, 10, 17), (40, 40, 17)))
    halved[:, :19] = halved[:, :1, :1]
    judged = judge_image(halved)
    assert (judged.count, judged.blobs, len(judged.objects)) == (None, 1, 1)
    assert (judged.colour, judged.shape) == ("red", shape)


def test_no_majority_no_name():
    red, blue = scene_of("heart", (5, 5, 15)), scene_of("heart", (40, 40, 15), colour="blue")
    judged = judge_image(np.minimum(make_image(red), make_image(blue)))
    assert (judged.colour, judged.shape, judged.count) == (None, "heart", 2)


def test_specks_are_overlooked():
    pixels = make_image(scene_of("star", (30, 30, 16)))
    pixels[:, 5:8, 5:8] = 0
    assert judge_image(pixels).count == 1


def test_images_of_nothing():
    noise = np.random.default_rng(0)
    assert judge_image(np.full((3, 64, 64), 0.96)) == NOTHING_SEEN
    assert judge_image(np.zeros((3, 64, 64))) == NOTHING_SEEN
    assert judge_image(noise.random((3, 64, 64))) == NOTHING_SEEN
    speckled = judge_image(0.96 + noise.normal(0, 0.5, (3, 64, 64)))
    assert (speckled.colour, speckled.shape, speckled.count) == (None, None, None)


def test_audio():
    judged = [judge_audio(render_audio(scene)) for scene in SCENES]
    assert min(accuracies(judged, SCENES).values()) >= 0.99
    assert np.abs(onset_errors(judged, SCENES)).max() < 0.010


def test_audio_from_mels():
    """The phases are lost, so is what lies under the floor, and the onsets are smeared."""
    scenes = SCENES[:24]
    mel = LogMel(MelConfig(floor=3e-3))
    with torch.inference_mode():
        waves = mel.invert(mel(torch.from_numpy(np.stack([render_audio(s) for s in scenes]))[:, None]))
    judged = [judge_audio(wave, SAMPLE_RATE) for wave in waves]
    assert min(accuracies(judged, scenes).values()) >= 0.97  # of 24: all
    assert np.abs(onset_errors(judged, scenes)).max() < 0.020


def test_notes_of_one_pitch_may_cancel_each_other():
    """In this chord of red hearts the octave comes out stronger than the pitch."""
    scene = dataclasses.replace(scene_of("heart", *[(0, 0, 13)] * 4), tempo="fast", start=0.142)
    assert judge_audio(render_audio(scene)).colour == "red"


@pytest.mark.parametrize("colour", COLOURS)
def test_sample_rate_and_level_do_not_matter(colour):
    wave = torch.from_numpy(render_audio(scene_of("cross", (0, 0, 13), (0, 0, 13), colour=colour)))
    judged = judge_audio(0.05 * resample(wave[None], SAMPLE_RATE, 44100), 44100)
    assert (judged.colour, judged.shape, judged.count, judged.tempo) == (colour, "cross", 2, "slow")
    assert judged.onsets == pytest.approx((0.3, 0.85), abs=0.01)
    assert judged.pitch == pytest.approx(PITCHES[colour], rel=0.01)


def test_a_pitch_between_the_notes_has_no_colour():
    t = np.arange(SAMPLES) / SAMPLE_RATE - 0.3
    judged = judge_audio(0.5 * (t > 0) * np.exp(-t.clip(0) / 0.18) * np.sin(2 * np.pi * 350 * t))
    assert (judged.colour, judged.shape, judged.count) == (None, "circle", 1)


def test_audio_of_nothing():
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLES)
    t = np.arange(SAMPLES) / SAMPLE_RATE
    assert judge_audio(np.zeros(SAMPLES)) == NO_NOTES
    assert judge_audio(np.zeros(0)) == NO_NOTES
    assert judge_audio(noise) == NO_NOTES
    assert judge_audio(noise * np.exp(-t / 0.2)) == NO_NOTES
    assert judge_audio(0.5 * np.sin(2 * np.pi * 392 * t)) == NO_NOTES  # a tone that never begins


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="image to judge holds values that are not finite"):
        judge_image(np.full((3, 64, 64), bad))
    with pytest.raises(ValueError, match="audio to judge holds values that are not finite"):
        judge_audio(torch.full((1, SAMPLES), bad))


def test_other_layouts():
    with pytest.raises(ValueError, match=r"must be \[3, H, W\], not \[64, 64, 3\]"):
        judge_image(np.ones((64, 64, 3)))
    with pytest.raises(ValueError, match=r"must be \[N\] or \[1, N\], not \[2, 100\]"):
        judge_audio(np.ones((2, 100)))
