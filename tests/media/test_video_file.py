"""Videos in time: edit lists, late beginnings, variable rates, joined files; and animated images."""

import av
import numpy as np
import pytest
import torch
from media_samples import grey, levels, loud, ramp, tone, write_film
from PIL import Image

from codi_backend.media.read import probe, read_audio, read_image, read_video


def trimmed(source, target, seconds):
    """A copy whose edit list hides the beginning; nothing is encoded anew."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copies[packet.stream.index]
                new.mux(packet)


def test_edit_lists(tmp_path):
    write_film(tmp_path / "a.mp4", ramp(100, 20), settings={"gop_size": 300})
    trimmed(tmp_path / "a.mp4", tmp_path / "b.mp4", 1.5)
    expected = np.arange(0.3, 0.7, 0.05)
    assert levels(read_video(tmp_path / "b.mp4", 8, 4.0)) == pytest.approx(expected, abs=0.02)
    assert levels(read_video(tmp_path / "b.mp4", 7)) == pytest.approx(np.arange(0.3, 1, 0.1), abs=0.02)
    assert levels(read_video(tmp_path / "b.mp4", 2, 4.0, start=2)) == pytest.approx([0.7, 0.75], abs=0.02)
    assert probe(tmp_path / "b.mp4").video_seconds == pytest.approx(3.5, abs=0.06)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts", "avi", "webm"])
def test_both_streams_share_a_timeline(tmp_path, ending):
    video, audio = {"webm": ("libvpx", "libopus"), "ts": ("h264", "aac")}.get(ending, ("h264", "pcm_s16le"))
    audio, rate = ("aac", 16000) if ending == "mp4" else (audio, 48000)
    first, later = ramp(), [[(1.0, tone(2, rate))]]
    if ending == "avi":  # has no late beginnings
        later = [[(0.0, np.concatenate([np.zeros(rate), tone(2, rate)]))]]
        video = "mpeg4"
    write_film(tmp_path / f"a.{ending}", first, later, video, audio, rate)
    assert levels(read_video(tmp_path / f"a.{ending}", 5, 1.0)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.03)
    assert levels(read_video(tmp_path / f"a.{ending}", 2, 2.0, start=2.35)) == pytest.approx([0.46, 0.56], abs=0.03)
    assert loud(*read_audio(tmp_path / f"a.{ending}")) == pytest.approx((1, 3), abs=0.03)
    assert loud(*read_audio(tmp_path / f"a.{ending}", start=0.4, seconds=1)) == pytest.approx((0.6, 1), abs=0.03)


def test_a_video_that_begins_later(tmp_path):
    write_film(tmp_path / "a.mkv", ramp(begin=1.0), [[(0.0, tone(2))]])
    # The first frame is shown until the second comes.
    assert levels(read_video(tmp_path / "a.mkv", 4, 1.0)) == pytest.approx([0, 0, 0.2, 0.4], abs=0.02)
    assert loud(*read_audio(tmp_path / "a.mkv")) == pytest.approx((0, 2), abs=0.02)
    assert probe(tmp_path / "a.mkv").video_seconds == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_rates(tmp_path, ending):
    moments = [0, 0.1, 0.2, 1.5, 1.6, 3.0]
    write_film(tmp_path / f"a.{ending}", [(moment, grey(k / 6)) for k, moment in enumerate(moments)])
    expected = [0, 2 / 6, 2 / 6, 3 / 6, 4 / 6, 4 / 6, 5 / 6]
    assert levels(read_video(tmp_path / f"a.{ending}", 7, 2.0)) == pytest.approx(expected, abs=0.02)
    assert levels(read_video(tmp_path / f"a.{ending}", 1, 2.0, start=1.55)) == pytest.approx([0.5], abs=0.02)


def test_joined_transport_streams(tmp_path):
    """The second file's stamps begin anew."""
    for name in "ab":
        write_film(tmp_path / f"{name}.ts", ramp(10), [[(0.0, tone(1, 48000))]], audio="aac", rate=48000)
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert levels(read_video(both, 4, 2.0)) == pytest.approx([0, 0.5, 0, 0.5], abs=0.11)
    samples, rate = read_audio(both)
    assert samples.shape[1] / rate == pytest.approx(2, abs=0.15)


def test_the_beginning_is_read_without_the_rest(tmp_path):
    path = write_film(tmp_path / "a.mkv", ramp(700, 1))
    with pytest.raises(ValueError, match=r"a\.mkv lasts more than 10 minutes"):
        read_video(path, 4)
    assert levels(read_video(path, 2, 1.0, start=630)) == pytest.approx([0.9, 0.9], abs=0.02)
    assert probe(path).video_seconds == pytest.approx(700, abs=1)


@pytest.mark.parametrize("rate", [None, 4.0])
def test_a_start_after_the_end(tmp_path, rate):
    path = write_film(tmp_path / "a.mp4", ramp(10), [[(0.0, tone(1))]], audio="aac")
    with pytest.raises(ValueError, match=r"a\.mp4: the video ends at (0\.9|1\.0).* s: give a start before that"):
        read_video(path, 4, rate, start=5)
    with pytest.raises(ValueError, match=r"a\.mp4: the audio ends at 1\.0. s: give a start before that"):
        read_audio(path, start=5)
    for read in (lambda: read_video(path, 4, start=-1), lambda: read_audio(path, start=-1)):
        with pytest.raises(ValueError, match=r"a\.mp4: .* from -1 s: give a start of 0 or more"):
            read()


def with_cover(path):
    """Audio with the cover of its album."""
    cover = Image.new("RGB", (16, 16), "red")
    with av.open(str(path), "w") as container:
        audio = container.add_stream("libmp3lame", 44100, layout="mono")
        cover_stream = container.add_stream("png")
        cover_stream.width, cover_stream.height, cover_stream.pix_fmt = 16, 16, "rgb24"
        cover_stream.disposition = av.stream.Disposition.attached_pic.value
        packets = cover_stream.encode(av.VideoFrame.from_image(cover)) + cover_stream.encode(None)
        frame = av.AudioFrame.from_ndarray(tone(1, 44100)[None], "fltp", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        for packet in packets + audio.encode(frame) + audio.encode(None):
            container.mux(packet)
    return path


def test_covers_are_no_videos(tmp_path):
    path = with_cover(tmp_path / "a.mp3")
    with pytest.raises(ValueError, match=r"a\.mp3 has no video track but a cover image: give a video"):
        read_video(path, 4)
    assert read_audio(path)[0].shape[1] == 44100
    info = probe(path)
    assert info.video_seconds is None and info.audio_seconds == pytest.approx(1, abs=0.03)


def test_the_default_stream_counts(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", 10) for _ in range(2)]
        for stream, disposition in zip(streams, (0, av.stream.Disposition.default.value)):
            stream.width = stream.height = 64
            stream.pix_fmt, stream.disposition = "yuv420p", disposition
        for stream, level in zip(streams, (0.2, 0.8)):
            frame = av.VideoFrame.from_ndarray(grey(level), "rgb24").reformat(format="yuv420p")
            for packet in stream.encode(frame) + stream.encode(None):
                container.mux(packet)
    assert levels(read_video(tmp_path / "a.mkv", 1)) == pytest.approx([0.8], abs=0.01)


# --- animated images

ANIMATED = {"gif": {}, "png": {}, "webp": {"lossless": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}


@pytest.mark.parametrize("ending", ANIMATED)
def test_animations_keep_their_times(tmp_path, ending):
    frames = [Image.new("RGB", (16, 16), (64 * k,) * 3) for k in range(4)]
    path = tmp_path / f"a.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 100, 300, 100], **ANIMATED[ending])
    assert levels(read_video(path, 6)) == pytest.approx([0, 0.25, 0.5, 0.5, 0.5, 0.75], abs=0.02)
    assert levels(read_video(path, 8, 10.0)) == pytest.approx([0, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75], abs=0.02)
    assert levels(read_video(path, 2, 10.0, start=0.1)) == pytest.approx([0.25, 0.5], abs=0.02)
    assert probe(path).video_seconds == pytest.approx(0.6) and probe(path).frame_rate == pytest.approx(4 / 0.6)
    assert levels(read_image(path)[:, None]) == pytest.approx([0], abs=0.02)
    with pytest.raises(ValueError, match=rf"a\.{ending}: the video ends at 0\.60 s"):
        read_video(path, 2, 10.0, start=0.7)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "avif"])
def test_animations_lie_on_white(tmp_path, ending):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 8, 16))
    full = Image.new("RGBA", (16, 16), (0, 0, 255, 255))
    options = {"disposal": 2, "lossless": True, "quality": 100}
    if ending == "gif":  # whose palette Pillow would make without transparency
        palettes = [Image.new("P", (16, 16), 1), Image.new("P", (16, 16), 0)]
        palettes[1].paste(1, (0, 0, 8, 16))
        for image in palettes:
            image.putpalette([255, 0, 0, 0, 0, 255])
        (full, clear), options = palettes, {"disposal": 2, "transparency": 0}
    path = tmp_path / f"a.{ending}"
    clear.save(path, save_all=True, append_images=[full], duration=100, **options)
    pixels = read_video(path, 2)
    torch.testing.assert_close(pixels[:, 0, 8, 12], torch.ones(3), atol=0.03, rtol=0)
    torch.testing.assert_close(pixels[:, 0, 8, 2], torch.tensor([0.0, 0, 1]), atol=0.03, rtol=0)
    torch.testing.assert_close(pixels[:, 1, 8, 12], torch.tensor([0.0, 0, 1]), atol=0.03, rtol=0)


def test_the_still_of_an_animated_png_is_left_out(tmp_path):
    frames = [Image.new("RGB", (8, 8), (64 * k,) * 3) for k in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=200, default_image=True)
    assert levels(read_video(tmp_path / "a.png", 4)) == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=0.01)


def test_frames_without_a_duration_last_a_tenth_of_a_second(tmp_path):
    frames = [Image.new("L", (8, 8), 60 * k) for k in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=0)
    assert probe(tmp_path / "a.gif").video_seconds == pytest.approx(0.4)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "tiff", "bmp", "avif"])
def test_a_still_lasts(tmp_path, ending):
    Image.new("RGB", (600, 1100), (128, 128, 128)).save(tmp_path / f"a.{ending}")
    for pixels in (read_video(tmp_path / f"a.{ending}", 3), read_video(tmp_path / f"a.{ending}", 3, 5.0, start=9)):
        assert pixels.shape == (3, 3, 939, 512)
        assert levels(pixels) == pytest.approx([0.502] * 3, abs=0.01)
    assert probe(tmp_path / f"a.{ending}").video_seconds is None


def test_a_stream_of_jpegs_is_a_video(tmp_path):
    data = b""
    for level in (0, 128, 255):
        Image.new("RGB", (16, 16), (level,) * 3).save(tmp_path / "a.jpg")
        data += (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.mjpeg").write_bytes(data)
    assert levels(read_video(tmp_path / "a.mjpeg", 3)) == pytest.approx([0, 0.5, 1], abs=0.02)
