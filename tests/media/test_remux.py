"""Films with other audio: the video is copied, the audio is in its place."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from codi_backend.media.read import probe, read_audio
from codi_backend.media.remux import write_film

RATE = 16000
NEW = 0.6 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)[None]  # a second
FRAMES, LENGTH = 50, 2.0


def make(path, codec="libx264", pix_fmt="yuv420p", audio=0.0, audio_codec="aac", rotation=0, form=None):
    """Two seconds, 25 frames each, whose levels of grey rise; and a tone of 300 Hz in two channels, if it is loud."""
    with av.open(str(path), "w", format=form) as container:
        video = container.add_stream(codec, 25)
        video.width, video.height, video.pix_fmt = 64, 48, pix_fmt
        if rotation:
            video.set_display_rotation(rotation)
        track = container.add_stream(audio_codec, 48000, layout="stereo") if audio else None
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * i, np.uint8), "rgb24").reformat(format=pix_fmt)
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track:
            tone = audio * np.sin(2 * np.pi * 300 * np.arange(int(LENGTH * 48000)) / 48000)
            frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]).astype(np.float32), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def moved(source, target, seconds, pixel_shape=None):
    """The same packets with other time stamps: what comes before 0 is cut off by an edit list."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s, opaque=True) for s in given.streams}
        if pixel_shape:
            streams[0].codec_context.sample_aspect_ratio = pixel_shape
        for packet in given.demux():
            if packet.size:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return target


def video_packets(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rows = [(float(p.pts * p.time_base), bytes(p), p.is_keyframe) for p in container.demux(stream) if p.size]
    return rows


def video_frames(path):
    """Time, level of grey and rotation of each frame, and the shape of pixels."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            (frame.time, frame.to_ndarray(format="gray").mean(), frame.rotation) for frame in container.decode(stream)
        ]
        return frames, stream.sample_aspect_ratio


def loudness(path, *, at, frequency):
    """The amplitude of a tone in 100 ms of the file's audio from some moments on, in seconds."""
    samples, rate = read_audio(path)
    wave = torch.exp(2j * torch.pi * frequency * torch.arange(rate // 10) / rate)
    return [float((samples[0, int(t * rate) : int(t * rate) + rate // 10] * wave).mean().abs() * 2) for t in at]


MOMENTS = (0.2, 0.55, 1.35, 1.7)  # the new audio lasts from 0.5 to 1.5 s


@pytest.mark.parametrize(
    ("name", "options", "suffix"),
    [
        ("a.mp4", {}, ".mp4"),
        ("a.mkv", {}, ".mp4"),
        ("a.mov", {}, ".mp4"),
        ("a.webm", {"codec": "libvpx-vp9", "audio_codec": "libopus"}, ".mp4"),
        ("b.webm", {"codec": "libvpx", "audio_codec": "libopus"}, ".mkv"),
        ("b.mov", {"codec": "prores", "pix_fmt": "yuv422p10le"}, ".mkv"),
        ("a.avi", {"codec": "mpeg4", "audio_codec": "mp3"}, ".mp4"),
    ],
)
def test_the_video_is_copied(tmp_path, name, options, suffix):
    source = make(tmp_path / name, **options)
    film = write_film(tmp_path / "film", source, NEW, RATE, start=0.5)
    assert film.path == tmp_path / f"film{suffix}" and (film.begin, film.end) == (0.5, 1.5)
    assert {path.name for path in tmp_path.iterdir()} == {name, film.path.name}
    given, got = video_packets(source), video_packets(film.path)
    assert [row[1:] for row in got] == [row[1:] for row in given] and len(got) >= FRAMES
    assert np.allclose(np.diff([row[0] for row in got]), np.diff([row[0] for row in given]), atol=0.0015)
    info = probe(film.path)
    assert info.video_seconds == pytest.approx(film.seconds, abs=0.002) and film.seconds == pytest.approx(2, abs=0.05)
    assert info.audio_seconds == pytest.approx(film.seconds, abs=0.002)
    assert loudness(film.path, at=MOMENTS, frequency=1000) == pytest.approx([0, 0.6, 0.6, 0], abs=0.02)


def test_audio_begins_where_it_should(tmp_path):
    """To a millisecond, and in the streams' own time."""
    film = write_film(tmp_path / "film", make(tmp_path / "a.mp4"), torch.full((1, RATE // 2), 0.5), RATE, start=0.75)
    samples, rate = read_audio(film.path)
    loud = (samples[0].abs() > 0.25).nonzero()
    assert float(loud[0]) / rate == pytest.approx(0.75, abs=0.002)
    assert float(loud[-1]) / rate == pytest.approx(1.25, abs=0.002)


@pytest.mark.parametrize("audio", [0.3, 0.9])
@pytest.mark.parametrize("name", ["a.mp4", "b.webm"])
def test_its_own_audio_is_kept(tmp_path, name, audio):
    options = {"codec": "libvpx", "audio_codec": "libopus"} if name == "b.webm" else {}
    source = make(tmp_path / name, audio=audio, **options)
    film = write_film(tmp_path / "film", source, NEW, RATE, start=0.5, keep_sound=True).path
    gain = min(1, 0.89 / (audio + 0.6))  # nothing clips
    own, new = (loudness(film, at=MOMENTS, frequency=frequency) for frequency in (300, 1000))
    assert own == pytest.approx([gain * audio] * 4, abs=0.02)
    assert new == pytest.approx([0, gain * 0.6, gain * 0.6, 0], abs=0.02)
    assert read_audio(film)[0].abs().max() < 0.95
    with av.open(str(film)) as container:
        assert (container.streams.audio[0].rate, container.streams.audio[0].channels) == (48000, 2)
    assert video_packets(film) == video_packets(source)


def test_a_film_without_audio_has_none_to_keep(tmp_path):
    film = write_film(tmp_path / "film", make(tmp_path / "a.mp4"), NEW, RATE, keep_sound=True).path
    assert loudness(film, at=(0.1, 1.3), frequency=1000) == pytest.approx([0.6, 0], abs=0.02)


def test_the_track_that_is_kept(tmp_path):
    files = make(tmp_path / "a.mp4", audio=0.2), make(tmp_path / "b.mp4", audio=0.5)
    with av.open(str(files[0])) as one, av.open(str(files[1])) as two, av.open(str(tmp_path / "c.mkv"), "w") as out:
        copies = [(given, stream) for given in (one, two) for stream in given.streams if given is one or stream.index]
        streams = {stream: out.add_stream_from_template(stream, opaque=True) for _, stream in copies}
        for given, stream in copies:
            given.seek(0)
            for packet in given.demux(stream):
                if packet.size:
                    packet.stream = streams[stream]
                    out.mux(packet)
    for track, audio in ((1, 0.2), (2, 0.5)):
        film = write_film(tmp_path / "film", tmp_path / "c.mkv", 0 * NEW, RATE, keep_sound=True, track=track).path
        assert loudness(film, at=(0.2, 1.5), frequency=300) == pytest.approx([audio] * 2, abs=0.02)
    with pytest.raises(ValueError, match="c.mkv has 2 audio tracks, no track 3"):
        write_film(tmp_path / "film", tmp_path / "c.mkv", NEW, RATE, keep_sound=True, track=3)


def test_rotation_pixel_shape_and_edit_list_are_kept(tmp_path):
    made = make(tmp_path / "a.mp4", audio=0.3, rotation=90)
    source = moved(made, tmp_path / "b.mp4", -0.5, pixel_shape=Fraction(4, 3))
    film = write_film(tmp_path / "film", source, NEW, RATE, start=0.2, keep_sound=True)
    given, got = video_frames(source), video_frames(film.path)
    assert 30 < len(given[0]) < FRAMES and {row[2] for row in given[0]} != {0}
    assert got == given
    assert film.seconds == pytest.approx(1.5, abs=0.045)
    assert loudness(film.path, at=(0.05, 0.3, 1.0, 1.25), frequency=1000)[::3] == pytest.approx([0, 0], abs=0.05)


def test_time_zero_is_when_the_film_begins(tmp_path):
    """Stamps of a transport stream begin somewhere."""
    source = make(tmp_path / "a.ts", audio=0.3)
    film = write_film(tmp_path / "film", source, NEW, RATE, start=0.5, keep_sound=True).path
    assert [row[1] for row in video_frames(film)[0]] == [row[1] for row in video_frames(source)[0]]
    assert loudness(film, at=MOMENTS, frequency=1000) == pytest.approx([0, 0.59, 0.59, 0], abs=0.02)
    assert loudness(film, at=MOMENTS, frequency=300) == pytest.approx([0.3] * 4, abs=0.02)


def test_audio_ends_with_the_film(tmp_path):
    film = write_film(tmp_path / "film", make(tmp_path / "a.mp4"), NEW, RATE, start=1.6)
    assert (film.begin, film.end) == (1.6, 2.0)
    assert probe(film.path).audio_seconds == pytest.approx(2, abs=0.002)
    assert loudness(film.path, at=(1.4, 1.65, 1.85), frequency=1000) == pytest.approx([0, 0.6, 0.6], abs=0.03)


def test_what_no_container_holds(tmp_path):
    with pytest.raises(ValueError, match=r"video of .*a.gif cannot be copied into MP4 or Matroska .* convert the film"):
        write_film(tmp_path / "film", make(tmp_path / "a.gif", "gif", "rgb8"), NEW, RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with pytest.raises(FileNotFoundError, match="There is no file nowhere.mp4"):
        write_film(tmp_path / "film", "nowhere.mp4", NEW, RATE)
