"""AV-Align: onsets and motion of made clips, whose times are known."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from media_samples import grey, tone, write_film

from codi_backend.cli.main import main
from codi_backend.data import ShapesAndChimes, sample_scene
from codi_backend.data.audio import render_audio
from codi_backend.evaluation.av_align import av_align, find_events, measure_synchrony
from codi_backend.evaluation.motion import motion_peaks
from codi_backend.evaluation.onsets import audio_onsets
from codi_backend.media.write import save_video

RATE, FRAME_RATE, SECONDS = 16000, 20, 3.0
TIMES = (0.5, 1.1, 1.35, 2.2)


def clicks(times, level=0.8):
    wave = np.zeros(round(SECONDS * RATE), np.float32)
    for time in times:
        first = round(time * RATE)
        wave[first : first + 400] = level * np.hanning(800)[400:] * np.sin(np.arange(400))
    return wave


def jumps(times):
    """Frames with a dark square that jumps sideways at each of the times."""
    frames = []
    for k in range(round(SECONDS * FRAME_RATE)):
        pixels = grey(0.9).copy()
        left = 8 + 8 * sum(k / FRAME_RATE >= time - 1e-6 for time in times)
        pixels[24:44, left : left + 16] = 20
        frames.append((k / FRAME_RATE, pixels))
    return frames


def clip(path, onsets, motion):
    return write_film(path, jumps(motion), [[(0, clicks(onsets))]])


@pytest.mark.parametrize("shift", [0.0, 0.013, 0.4])
def test_onsets_of_clicks(shift):
    times = [time + shift for time in TIMES]
    assert audio_onsets(torch.from_numpy(clicks(times)), RATE) == pytest.approx(times, abs=0.012)


@pytest.mark.parametrize("level", [0.01, 1.0])
def test_onsets_do_not_depend_on_the_level(level):
    assert len(audio_onsets(torch.from_numpy(clicks(TIMES, level)), RATE)) == len(TIMES)


def test_onsets_of_notes_that_overlap():
    found = right = 0
    for index in range(40):
        scene = sample_scene(5, index, "all")
        onsets = audio_onsets(torch.from_numpy(render_audio(scene)), RATE)
        right += sum(bool(len(onsets)) and np.abs(onsets - time).min() < 0.03 for time in scene.onsets)
        found += len(onsets)
        assert len(onsets) >= 1
    total = sum(len(sample_scene(5, index, "all").onsets) for index in range(40))
    assert right / total > 0.97 and found / total < 1.1


def test_audio_that_begins_within_a_sound_has_an_onset_at_0():
    assert audio_onsets(torch.from_numpy(tone(1.0)), RATE)[0] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_onsets_at_any_rate(rate):
    wave = np.zeros(2 * rate, np.float32)
    wave[rate : rate + rate // 4] = tone(0.25, rate)
    onsets = audio_onsets(torch.from_numpy(wave)[None], rate)
    assert onsets[0] == pytest.approx(1.0, abs=0.012)


def test_silence_and_stills_have_no_events(tmp_path):
    assert not len(audio_onsets(torch.zeros(1, RATE), RATE)) and not len(audio_onsets(torch.zeros(1, 0), RATE))
    assert not len(motion_peaks(write_film(tmp_path / "still.mp4", jumps(()))))


def test_motion_peaks(tmp_path):
    assert motion_peaks(write_film(tmp_path / "a.mp4", jumps(TIMES))) == pytest.approx(TIMES, abs=1e-3)


def test_values():
    frame = 0.1
    assert av_align([1.0, 2.0], [1.0, 2.0], frame) == 1
    assert av_align([1.0, 2.0], [1.1, 1.9], frame) == 1  # one frame before or after
    assert av_align([1.0, 2.0], [1.11, 1.89], frame) == 0
    assert av_align([1.0, 2.0], [1.0], frame) == 1 / 2
    assert av_align([1.0, 2.0, 3.0], [1.0, 2.5, 3.0], frame) == 2 / 4
    assert av_align([0.95, 1.05], [1.0], frame) == 1.5 / 1.5  # two onsets within a frame of one peak
    assert av_align([], [1.0], frame) == av_align([1.0], [], frame) == 0
    assert av_align([], [], frame) is None


def test_the_measure_is_symmetric():
    generator = np.random.default_rng(0)
    for _ in range(50):
        a, v = generator.uniform(0, 3, 4), generator.uniform(0, 3, 6)
        assert av_align(a, v, 0.2) == av_align(v, a, 0.2) and 0 <= av_align(a, v, 0.2) <= 1


def test_scores_fall_with_the_shift(tmp_path):
    scores = [
        measure_synchrony([clip(tmp_path / f"{shift}.mkv", [time + shift for time in TIMES], TIMES)]).mean
        for shift in (0.0, 0.04, 0.2, 0.4)
    ]
    assert scores[0] == scores[1] == 1
    # At 0.2 s the second click falls near the third jump.
    assert scores[2] <= 0.4 and scores[3] <= 0.2


def test_rendered_scenes_reach_what_few_frames_allow(tmp_path):
    """Objects that appear with their notes; frames are 0.16 s apart, so quick notes share a frame's window."""
    data = ShapesAndChimes(20, ("video", "audio"), split="held_out", seed=3)
    for i in range(20):
        save_video(tmp_path / f"{i}.mp4", data[i]["video"], 6.25, data[i]["audio"], 16000)
    result = measure_synchrony(sorted(tmp_path.glob("*.mp4")))
    assert result.mean > 0.88 and result.shuffled < 0.45


def test_shuffled_is_the_mean_over_pairs_of_different_clips(tmp_path):
    times = [(0.5, 1.5), (0.9, 2.3), (0.5, 2.7)]
    paths = [clip(tmp_path / f"{i}.mkv", t, t) for i, t in enumerate(times)]
    result = measure_synchrony(paths)
    assert list(result.scores.values()) == [1, 1, 1] and result.mean == 1
    assert result.shuffled == pytest.approx((2 * 1 / 3) / 6)  # clips 0 and 2 share an event


def test_clips_without_events(tmp_path):
    silent = clip(tmp_path / "silent.mkv", (), TIMES)
    still = clip(tmp_path / "still.mkv", TIMES, ())
    neither = clip(tmp_path / "neither.mkv", (), ())
    result = measure_synchrony([silent, still, neither])
    assert list(result.scores.values()) == [0, 0, None] and result.mean == 0
    alone = measure_synchrony([neither])
    assert (alone.mean, alone.shuffled) == (None, None)


def test_events(tmp_path):
    events = find_events(clip(tmp_path / "a.mkv", (1.0,), (1.5,)))
    assert events.onsets == pytest.approx((1.0,), abs=0.012) and events.peaks == pytest.approx((1.5,), abs=1e-3)
    assert events.frame_seconds == pytest.approx(0.05, abs=2e-3)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: write_film(path, jumps(TIMES)), "has no audio: give a video that has audio"),
        (lambda path: write_film(path, None, [[(0, tone(1.0))]]), "has no video: give a video that has audio"),
        (lambda path: path.write_bytes(b"what?" * 99), "cannot be read as a video"),
        (lambda path: None, "There is no file"),
    ],
)
def test_files_that_cannot_be_measured(tmp_path, capsys, make, what):
    path = tmp_path / "a.mkv"
    make(path)
    assert main(["similarity", "--av-align", str(path)]) == 1
    error = capsys.readouterr().err
    assert what in error and str(path) in error and error.count("\n") == 1


def test_command(tmp_path, capsys):
    paths = [str(clip(tmp_path / f"{i}.mkv", TIMES, TIMES)) for i in range(2)]
    out = tmp_path / "out"
    assert main(["similarity", "--json", "--out", str(out), "--av-align", *paths]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"scores": dict.fromkeys(paths, 1.0), "mean": 1.0, "shuffled": 1.0}
    assert json.loads((out / "av_align.json").read_text()) == printed
    assert main(["similarity", "--av-align", *paths]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["1.000"] * 4


@pytest.mark.parametrize(
    ("arguments", "what"),
    list(product([["--text", "rain"], ["--outputs", "audio"]], ["leave out prompts"])) + [([], "given twice")],
)
def test_options_that_do_not_fit(tmp_path, capsys, arguments, what):
    path = str(clip(tmp_path / "a.mkv", TIMES, TIMES))
    assert main(["similarity", *arguments, "--av-align", path, path]) == 1
    assert what in capsys.readouterr().err
