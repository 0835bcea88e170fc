"""Parts of files that prompt or are held, and the notes about the rest."""

import math

import pytest
import torch

from codi_backend import CoDi
from codi_backend.media.contents import read_held, read_prompt, split_start
from codi_backend.media.write import save_video, save_wav
from codi_backend.models.encoders.audio import CutPrompt
from codi_backend.presets import mini

MINI = mini.CONFIG


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Six seconds: frame i of 25 a second has the level of grey of the second, audio the loudness."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    seconds = torch.arange(150) // 25
    audio = (torch.arange(96000) // 16000 + 1) / 10 * torch.sin(torch.arange(96000) * 2 * math.pi * 500 / 16000)
    save_video(path, (seconds / 10)[None, :, None, None].expand(3, -1, 64, 64), 25.0, audio[None], 16000)
    return str(path)


def levels(video):
    return [round(level * 10) for level in video[0].mean((0, 2, 3)).tolist()]


def loudness(audio):
    samples, rate = audio
    return [round(10 * float(second.square().mean().sqrt()) * 2**0.5) for second in samples[0, 0].split(rate)]


def test_split_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b@2", "c@2.5"):
        (tmp_path / name).touch()
    assert split_start("video", "a.mp4@12.5") == ("a.mp4", 12.5)
    assert split_start("audio", "b@2@.5") == ("b@2", 0.5)
    assert split_start("audio", "a.mp4@0") == ("a.mp4", 0.0)
    for content in ("a.mp4", "b@2", "c@2.5", "missing@x.mp4"):
        assert split_start("video", content) == (content, None)
    assert split_start("image", "a.mp4@2") == ("a.mp4@2", None)
    for start in ("x", "-1", "nan", "1:30", ""):
        with pytest.raises(
            ValueError, match=f"^a.mp4@{start}: '{start}' is no start in seconds; write it as in a.mp4@12"
        ):
            split_start("video", f"a.mp4@{start}")


def test_held_videos(film):
    value, (note,) = read_held("video", film, MINI)
    assert levels(value) == [int(i / 6.25) for i in range(16)]
    assert note == (
        f"{film} lasts 6.00 s: the video that is held is the part from 0.00 to 2.56 s; "
        f"{film}@SECONDS chooses another part."
    )
    value, (note,) = read_held("video", f"{film}@3", MINI, seconds=1.0)
    assert levels(value) == [3] * 7 and "the part from 3.00 to 4.12 s" in note
    value, notes = read_held("video", f"{film}@5", MINI, frames=6)
    assert levels(value) == [5] * 6 and notes == ()
    with pytest.raises(ValueError, match="the video ends at 6.00 s: give a start before that"):
        read_held("video", f"{film}@7", MINI)


def test_held_audio(film):
    value, (note,) = read_held("audio", film, MINI)
    assert loudness(value)[:2] == [1, 2] and value[0].shape[-1] == 40960
    assert "the audio that is held is the part from 0.00 to 2.56 s" in note
    value, (note,) = read_held("audio", f"{film}@2", MINI, seconds=3)
    assert loudness(value)[:3] == [3, 4, 5] and "from 2.00 to 5.20 s" in note
    value, notes = read_held("audio", f"{film}@5", MINI, frames=16)
    assert loudness(value) == [6] and notes == ()


def test_prompts(film, tmp_path):
    value, (note,) = read_prompt("audio", film, MINI)
    assert loudness(value) == [1, 2, 3, 4, 5, 6]  # the encoder takes the middle itself
    assert note.startswith(f"{film} lasts 6.00 s: the prompt is the part from 1.72 to 4.28 s; ")
    for start in (0, 3):
        value, (note,) = read_prompt("audio", f"{film}@{start}", MINI)
        assert loudness(value)[:2] == [start + 1, start + 2] and value[0].shape[-1] == 40960
        assert f"from {start}.00 to {start + 2}.56 s" in note
    assert read_prompt("audio", f"{film}@4", MINI).notes == ()
    value, (note,) = read_prompt("video", f"{film}@2", MINI)
    assert levels(value) == [2 + i // 4 for i in range(16)]
    assert note.endswith("the prompt is 16 frames, evenly spread over the part from 2.00 to 6.00 s.")
    assert read_prompt("video", f"{film}@4", MINI).notes == ()
    assert read_prompt("text", "a@2", MINI) == ("a@2", ())
    save_wav(tmp_path / "long.wav", torch.cat([torch.zeros(1, 4000 * 301), torch.full((1, 4000 * 301), 0.5)], 1), 4000)
    value, (note,) = read_prompt("audio", str(tmp_path / "long.wav"), MINI)  # longer than what is read whole
    assert value[0].shape[-1] == 10240 and float(value[0].mean()) == pytest.approx(0.25, abs=0.01)
    assert "from 299.72 to 302.28 s" in note


def test_the_library_warns_that_a_prompt_is_cut(recwarn):
    codi = CoDi.load("mini", only=["prompt_encoders.audio"])
    audio = torch.rand(1, 1, 96000) - 0.5
    with pytest.warns(CutPrompt, match="The audio prompt lasts 6.00 s: its middle, 2.56 s, is encoded"):
        cut = codi.prompt("audio", audio, 16000)
    recwarn.clear()
    middle = codi.prompt("audio", audio[..., 27520 : 27520 + 40960], 16000)
    assert not recwarn.list
    torch.testing.assert_close(cut.embedding, middle.embedding)
