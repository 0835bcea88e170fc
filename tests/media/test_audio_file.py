"""Audio in time, in every sample format, by track, and what a film holds."""

import struct

import av
import numpy as np
import pytest
import torch
from media_samples import loud, pitch, ramp, tone, write_film, write_wav

from codi_backend.media.read import MediaInfo, probe, read_audio


@pytest.mark.parametrize(("ending", "audio"), [("mp4", "aac"), ("mkv", "pcm_s16le"), ("webm", "libopus")])
def test_gaps_are_silent(tmp_path, ending, audio):
    pieces = [(0.0, tone(1, 48000)), (2.0, tone(1, 48000))]
    write_film(tmp_path / f"a.{ending}", tracks=[pieces], audio=audio, rate=48000)
    samples, rate = read_audio(tmp_path / f"a.{ending}")
    assert samples.shape[1] / rate == pytest.approx(3, abs=0.06)
    assert samples[:, int(1.1 * rate) : int(1.9 * rate)].abs().max() < 0.01
    for part in (samples[:, :rate], samples[:, 2 * rate : 3 * rate]):
        assert part.square().mean() == pytest.approx(0.125, rel=0.05) and pitch(part, rate) == pytest.approx(440, abs=2)
    assert loud(*read_audio(tmp_path / f"a.{ending}", start=1.5)) == pytest.approx((0.5, 1.5), abs=0.03)


def test_overlaps_are_cut(tmp_path):
    """Each block of a tenth of a second lies but 60 ms after the one before."""
    blocks = [(0.06 * k, np.full(1600, 0.1 * k, np.float32)) for k in range(5)]
    write_film(tmp_path / "a.mkv", tracks=[blocks])
    samples, rate = read_audio(tmp_path / "a.mkv")
    assert samples.shape[1] == pytest.approx(0.34 * rate, abs=32)
    found = [float(samples[0, int(moment * rate)]) for moment in (0.05, 0.13, 0.19, 0.25, 0.31)]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.01)


def test_stamps_that_jitter_make_no_gaps(tmp_path):
    audio = tone(0.5)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 25)
    blocks = [(max(0, 0.02 * k + jitter[k]), audio[320 * k : 320 * (k + 1)]) for k in range(25)]
    write_film(tmp_path / "a.mkv", tracks=[blocks])
    samples, _ = read_audio(tmp_path / "a.mkv")
    torch.testing.assert_close(samples[0], torch.from_numpy(audio), atol=1e-4, rtol=0)


@pytest.mark.parametrize("parts", [[(22050, "mono"), (44100, "stereo")], [(48000, "stereo"), (32000, "mono")]])
def test_rates_that_change(tmp_path, parts):
    data = b""
    for rate, layout in parts:
        path = tmp_path / f"{rate}.mp3"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libmp3lame", rate, layout=layout)
            audio = np.tile(tone(1, rate), (1 if layout == "mono" else 2, 1))
            frame = av.AudioFrame.from_ndarray(audio, "fltp", layout)
            frame.sample_rate, frame.pts = rate, 0
            for packet in stream.encode(frame) + stream.encode(None):
                container.mux(packet)
        data += path.read_bytes()
    (tmp_path / "a.mp3").write_bytes(data)
    samples, rate = read_audio(tmp_path / "a.mp3")
    assert rate in (parts[0][0], parts[1][0]) and samples.shape[1] / rate == pytest.approx(2, abs=0.1)
    for moment in (0.2, 1.3):
        part = samples[:, int(moment * rate) : int((moment + 0.6) * rate)]
        assert pitch(part, rate) == pytest.approx(440, abs=3)
        assert part.square().mean() == pytest.approx(0.125, rel=0.1)


FORMATS = {
    "8 bits": (1, 8, lambda x: np.uint8(np.round(x * 127 + 128)).tobytes()),
    "16 bits": (1, 16, lambda x: np.int16(x * 32767).tobytes()),
    "24 bits": (1, 24, lambda x: b"".join(int(v * 8388607).to_bytes(3, "little", signed=True) for v in x)),
    "32 bits": (1, 32, lambda x: np.int32(x * 2147483000.0).tobytes()),
    "floats": (3, 32, lambda x: np.float32(x).tobytes()),
    "doubles": (3, 64, lambda x: np.float64(x).tobytes()),
}


@pytest.mark.parametrize("form", FORMATS)
def test_sample_formats(tmp_path, form):
    code, bits, pack = FORMATS[form]
    audio = tone(0.2)
    samples, rate = read_audio(write_wav(tmp_path / "a.wav", code, bits, pack(audio.astype(np.float64))))
    assert rate == 16000
    torch.testing.assert_close(samples[0], torch.from_numpy(audio), atol=0.009 if bits == 8 else 1e-4, rtol=0)


def test_all_channels_are_averaged(tmp_path):
    """Of 5.1, too."""
    data = np.tile(np.int16([6000, 0, 12000, 0, 600, 0]), 1600).tobytes()
    samples, _ = read_audio(write_wav(tmp_path / "a.wav", 1, 16, data, channels=6))
    torch.testing.assert_close(samples, torch.full((1, 1600), 3100 / 32768))


@pytest.mark.parametrize(
    ("peak", "message"),
    [
        (1e30, "up to [19].*e[+](29|30), where at most 100 makes sense"),
        (32800, "up to 3.2.e[+]04"),
        (np.nan, "not finite"),
    ],
)
def test_floats_that_no_audio_has(tmp_path, peak, message):
    path = write_wav(tmp_path / "a.wav", 3, 32, np.float32(2 * peak * tone(0.1)).tobytes())
    with pytest.raises(ValueError, match=rf"a\.wav holds .*{message}.*: make the audio again\.$"):
        read_audio(path)


def test_floats_may_overshoot(tmp_path):
    samples, _ = read_audio(write_wav(tmp_path / "a.wav", 3, 32, np.float32(3 * tone(0.1)).tobytes()))
    assert samples.max() == pytest.approx(1.5, abs=0.01)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Five seconds with two tracks of three and four seconds; the second is the one to be played."""
    path = tmp_path_factory.mktemp("film") / "a.mkv"
    write_film(tmp_path_factory.mktemp("one") / "b.mkv", ramp(), [[(0.0, tone(3))], [(0.0, tone(4, frequency=880))]])
    with av.open(str(tmp_path_factory.getbasetemp() / "one0" / "b.mkv")) as old, av.open(str(path), "w") as new:
        copies = [new.add_stream_from_template(stream) for stream in old.streams]
        copies[1].metadata["language"], copies[1].metadata["title"] = "eng", "Commentary"
        copies[1].disposition = 0
        copies[2].disposition = av.stream.Disposition.default.value
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path


def test_tracks(film):
    expected = {None: (880, 4), 1: (440, 3), 2: (880, 4)}
    for track, (frequency, seconds) in expected.items():
        samples, rate = read_audio(film, track=track)
        assert samples.shape[1] == seconds * rate and pitch(samples, rate) == pytest.approx(frequency, abs=1)
    for track in (0, 3, -1):
        with pytest.raises(
            ValueError, match=rf"a\.mkv has 2 audio tracks, no track {track}: give a number from 1 to 2"
        ):
            read_audio(film, track=track)


def test_probe(film):
    info = probe(film)
    assert info == MediaInfo(info.video_seconds, 4.0, ("eng, Commentary, pcm_s16le", "pcm_s16le"), info.frame_rate)
    assert info.video_seconds == pytest.approx(5, abs=0.1) and info.frame_rate == pytest.approx(10, abs=0.1)


def test_probe_of_audio_alone(tmp_path):
    write_wav(tmp_path / "a.wav", 1, 16, struct.pack("<16000h", *[99] * 16000))
    assert probe(tmp_path / "a.wav") == MediaInfo(None, 1.0, ("pcm_s16le",), None)


def test_probe_of_other_files(tmp_path):
    (tmp_path / "a.txt").write_text("three red stars" * 99)
    with pytest.raises(ValueError, match=r"a\.txt cannot be read as a video \(it is text\)"):
        probe(tmp_path / "a.txt")
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile a.txt\n")
    with pytest.raises(ValueError, match=r"a\.ffconcat cannot be read as a video"):
        probe(tmp_path / "a.ffconcat")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*b\.mp4"):
        probe(tmp_path / "b.mp4")


@pytest.mark.parametrize(("start", "seconds"), [(0, 1), (0.5, 0.25), (2.75, 1), (1.3, None)])
def test_parts(film, start, seconds):
    whole, rate = read_audio(film, track=1)
    part, part_rate = read_audio(film, track=1, start=start, seconds=seconds)
    end = None if seconds is None else int((start + seconds) * rate)
    assert part_rate == rate and torch.equal(part, whole[:, int(start * rate) : end])


def test_parts_of_long_audio(tmp_path):
    """Only the part that is read may not be longer than 10 minutes."""
    path = write_wav(tmp_path / "a.wav", 1, 8, bytes([128]) * 4000 * 640 + bytes([255]) * 4000, rate=4000)
    samples, rate = read_audio(path, start=639.5, seconds=1)
    assert rate == 4000 and loud(samples, rate) == pytest.approx((0.5, 1))
    for options in ({}, {"start": 10}, {"seconds": 601}):
        with pytest.raises(ValueError, match=r"a\.wav lasts more than 10 minutes"):
            read_audio(path, **options)
