"""The judge of videos against scenes whose attributes are known."""

import numpy as np
import pytest
import torch

from codi_backend import CoDi
from codi_backend.data import sample_scene
from codi_backend.data.images import render_video
from codi_backend.data.world import Scene
from codi_backend.evaluation.judges import JudgedVideo, judge_audio, judge_image, judge_video
from codi_backend.evaluation.prompts import render

SCENES = [sample_scene(11, i, "all") for i in range(100)]
FRAME = 0.16  # seconds
NOTHING = JudgedVideo(None, None, None)


def make_video(scene):
    return render_video(scene).transpose(3, 0, 1, 2)


def accuracies(judged, scenes):
    """Share of right answers per attribute; one object has no tempo."""
    right = {}
    for attribute in ("colour", "shape", "count", "tempo"):
        truth = [None if attribute == "tempo" and s.count == 1 else getattr(s, attribute) for s in scenes]
        right[attribute] = np.mean([getattr(j, attribute) == t for j, t in zip(judged, truth)])
    return right


def errors(judged, scenes):
    return np.concatenate([np.subtract(j.onsets, s.onsets) for j, s in zip(judged, scenes) if j.count == s.count])


def test_videos():
    judged = [judge_video(make_video(scene)) for scene in SCENES]
    assert min(accuracies(judged, SCENES).values()) >= 0.99
    late = errors(judged, SCENES)
    assert np.abs(late).max() <= FRAME / 2 + 1e-3  # an appearance can be anywhere between two frames
    assert abs(late.mean()) < 0.01


@pytest.fixture(scope="module")
def mini():
    return CoDi.load("mini", only=["autoencoders.image", "autoencoders.audio"])


def test_videos_from_the_small_models_latents(mini):
    """And their last frames as images."""
    scenes, judged, last_frames = SCENES[:40], [], []
    for scene in scenes:
        frames, places = np.unique(render_video(scene), axis=0, return_inverse=True)  # the autoencoder sees each alone
        stills = mini.decode("image", mini.encode("image", torch.from_numpy(frames).permute(0, 3, 1, 2)))
        judged.append(judge_video(stills[places.ravel()].transpose(0, 1)))
        last_frames.append(judge_image(stills[places.ravel()[-1]]))
    assert min(accuracies(judged, scenes).values()) >= 0.99
    assert np.abs(errors(judged, scenes)).max() <= FRAME / 2 + 0.01
    assert (
        np.mean([(p.colour, p.shape, p.count) == (s.colour, s.shape, s.count) for p, s in zip(last_frames, scenes)])
        >= 0.99
    )


def test_audio_from_the_small_models_latents(mini):
    scenes = SCENES[:12]
    waves = mini.decode("audio", mini.encode("audio", render("audio", scenes), 16000))
    judged = [judge_audio(wave) for wave in waves]
    assert min(accuracies(judged, scenes).values()) >= 0.99
    assert np.abs(errors(judged, scenes)).max() < 0.03


def one(start, **changes):
    return Scene(**{**vars(sample_scene(0, 0)), "count": 1, "places": ((20, 30, 17),), "start": start, **changes})


def test_a_fade_is_dated_where_it_is_half_done():
    shown, empty = make_video(one(0.1))[:, -1:], make_video(one(0.1))[:, :1]

    def faded(*levels):
        return judge_video(np.concatenate([empty + level * (shown - empty) for level in (*levels, *[1] * 8)], 1)).onsets

    assert faded(0, 0, 0) == pytest.approx([2.5 * FRAME])
    assert faded(0, 0.25, 0.75, 0.9) == pytest.approx([1.5 * FRAME], abs=0.01)
    assert faded(0, 0, 0.4) == pytest.approx([(2 + 0.1 / 0.6) * FRAME], abs=0.01)
    assert faded() == (0.0,)


def test_a_flicker_moves_nothing():
    scene = one(0.7)
    steady = make_video(scene)
    begun = judge_video(steady).onsets
    early, late = steady.copy(), steady.copy()
    early[:, 1] = steady[:, -1]
    late[:, 10] = steady[:, 0]
    assert judge_video(early).onsets == judge_video(late).onsets == begun == pytest.approx((4.5 * FRAME,))


def test_frame_rate():
    assert judge_video(make_video(one(0.3)), frame_rate=12.5).onsets == pytest.approx((0.75 * FRAME,))


def test_objects_that_vanish_do_not_count():
    pixels = make_video(SCENES[0])
    pixels[:, -1] = pixels[:, 0]
    assert judge_video(pixels) == NOTHING


def test_appearing_at_once_has_no_tempo():
    pixels = np.repeat(make_video(next(s for s in SCENES if s.count == 3))[:, -1:], 16, 1)
    judged = judge_video(np.where(np.arange(16)[:, None, None] < 4, np.float32(0.96), pixels))
    assert (judged.count, judged.tempo) == (3, None)
    assert judged.onsets == pytest.approx([3.5 * FRAME] * 3)


def test_videos_of_nothing():
    noise = np.random.default_rng(0).random((3, 16, 64, 64))
    assert (
        judge_video(noise)
        == judge_video(np.zeros((3, 16, 64, 64)))
        == judge_video(np.full((3, 1, 64, 64), 0.96))
        == NOTHING
    )


def test_other_contents():
    with pytest.raises(ValueError, match="video to judge holds values that are not finite"):
        judge_video(torch.full((3, 2, 64, 64), torch.nan))
    for shape in ((3, 64, 64), (16, 3, 64, 64), (3, 0, 64, 64)):
        with pytest.raises(ValueError, match=r"must be \[3, T, H, W\]"):
            judge_video(np.ones(shape))
