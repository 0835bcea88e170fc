"""A user's data: folders, manifests, shards; how they are read, and the messages about faulty ones."""

import json
import tarfile
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import own_data
import pytest
import tiny
import torch

from codi_backend.data.broken import Broken
from codi_backend.data.checks import check_entries, read_all
from codi_backend.data.entries import find_entries
from codi_backend.data.pairs import Pairs, shuffled_rows

pytestmark = pytest.mark.audio

ALL = ("image", "audio", "text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_data.make(tmp_path_factory.mktemp("own") / "data")


def same(a, b):
    return a.keys() == b.keys() and all(a[k] == b[k] if k == "text" else torch.equal(a[k], b[k]) for k in a)


def pack(path, names):
    with tarfile.open(path, "w") as archive:
        for name, file in names.items():
            archive.add(file, name)
    return path


def csv(folder):
    lines = ["id,image,audio,text"] + [f'{i},data/item{i}.png,data/item{i}.wav,"thing number {i}"' for i in range(4)]
    path = folder.parent / "all.csv"
    path.write_text("\n".join(lines))
    return path


def jsonl(folder):
    rows = [{"image": f"data/item{i}.png", "audio": f"data/item{i}.wav", "text": f"thing number {i}"} for i in range(4)]
    path = folder.parent / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    return path


def shards(folder):
    out = folder.parent / "shards"
    out.mkdir(exist_ok=True)
    for n in (0, 1):
        files = [f for f in sorted(folder.iterdir()) if int(f.stem[-1]) // 2 == n]
        pack(out / f"own-00{n}.tar", {f"x/{f.name}": f for f in files} | {"x/item.json": __file__})
    return out


def test_items(folder):
    pairs = Pairs.find(folder, tiny.CONFIG, ALL)
    assert len(pairs) == 4
    item = pairs[1]
    assert item["image"].shape == (3, 64, 64) and item["audio"].shape == (1, 10240)
    assert item["text"] == "thing number 1"
    assert (item["image"][:, 30, 30] * 255).round().tolist() == [40, 200, 215]
    # 300 Hz at the model's rate
    spectrum = torch.fft.rfft(item["audio"][0]).abs()
    assert int(spectrum.argmax()) * 16000 / 10240 == pytest.approx(300, abs=2)
    with pytest.raises(IndexError):
        pairs[4]


@pytest.mark.parametrize("kind", [csv, jsonl, shards])
def test_all_kinds_hold_the_same(folder, kind):
    a, b = (Pairs.find(data, tiny.CONFIG, ALL) for data in (folder, kind(folder)))
    assert len(a) == len(b) and all(same(a[i], b[i]) for i in range(len(a)))


def test_patterns_of_shards(folder):
    out = shards(folder)
    assert len(find_entries(out / "own-{000..001}.tar")) == 4
    assert [e.name for e in find_entries(out / "own-001.tar")] == ["own-001.tar/x/item2", "own-001.tar/x/item3"]


def test_audio_is_cut_and_padded(tmp_path):
    for name, seconds in (("short", 0.2), ("long", 3)):
        own_data.write_audio(tmp_path / f"{name}.wav", 440, seconds)
    long, short = (Pairs.find(tmp_path, tiny.CONFIG, ("audio",))[i]["audio"] for i in (0, 1))
    assert long.shape == short.shape == (1, 10240)
    assert not short[0, 3300:].any() and long[0, 9000:].any() and short[0, :3000].any()


def test_videos(tmp_path):
    from codi_backend.media.write import save_video

    brightness = torch.linspace(0, 1, 12)[None, :, None, None].expand(3, 12, 48, 64)
    save_video(tmp_path / "video.mp4", brightness, 4.0)
    config = replace(tiny.CONFIG, image_autoencoder=replace(tiny.CONFIG.image_autoencoder, frames=6, frame_rate=2.0))
    video = Pairs.find(tmp_path, config, ("video",))[0]["video"]
    assert video.shape == (3, 6, 64, 64)
    torch.testing.assert_close(video.mean((0, 2, 3)), torch.linspace(0, 1, 12)[::2], atol=0.03, rtol=0)


def test_batches_follow_from_their_arguments(folder):
    pairs = Pairs.find(folder, tiny.CONFIG, ALL)
    batch = pairs.batch(1, 3, 7)
    assert batch["image"].shape == (3, 3, 64, 64) and batch["audio"].shape == (3, 1, 10240) and len(batch["text"]) == 3
    assert same(batch, pairs.batch(1, 3, 7))
    assert pairs.batch(1, 3, 7, ("text",)).keys() == {"text"}


def test_every_entry_comes_once_before_any_comes_again():
    rows = [row for step in range(5) for row in shuffled_rows(step, 4, 3, 10)]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10)) and rows[:10] != rows[10:]
    assert shuffled_rows(0, 4, 3, 10) != shuffled_rows(0, 4, 4, 10)


def test_workers_read_the_same(folder):
    pairs = Pairs.find(folder, tiny.CONFIG, ALL)
    assert all(same(a, b) for a, b in zip(read_all(pairs), read_all(pairs, 2), strict=True))


def test_counts_are_reported(folder, tmp_path):
    own_data.make(tmp_path, 2)
    own_data.write_image(tmp_path / "alone.png", "red")
    (tmp_path / "alone.txt").write_text("alone")
    lines = []
    check_entries(Pairs.find(tmp_path, tiny.CONFIG, ALL), lines.append)
    assert lines == [
        f"{tmp_path}: 3 entries, 3 with text, 3 with image, 0 with video, 2 with audio; 2 with image, audio and text.",
        "1 entries lack some of image, audio and text and are left out: alone.",
    ]


def test_missing_captions(tmp_path):
    own_data.make(tmp_path, 9)
    for i in range(8):
        (tmp_path / f"item{i}.txt").unlink()
    with pytest.raises(ValueError, match="8 of the 9 entries of .* no caption: item0, item1, item2, item3, item4 ...."):
        check_entries(Pairs.find(tmp_path, tiny.CONFIG, ALL), lambda line: None)
    check_entries(Pairs.find(tmp_path, tiny.CONFIG, ("image",)), lambda line: None)


def test_nothing_for_the_stage(tmp_path):
    own_data.write_image(tmp_path / "a.png", "red")
    own_data.write_audio(tmp_path / "b.wav", 300)
    with pytest.raises(
        ValueError, match="No entry of .* has image and audio .0 with text, 1 with image, 0 with video, 1"
    ):
        check_entries(Pairs.find(tmp_path, tiny.CONFIG, ("image", "audio")), lambda line: None)


def test_unreadable_files(tmp_path):
    own_data.make(tmp_path, 4)
    (tmp_path / "item1.png").write_bytes(b"no image")
    (tmp_path / "item2.txt").write_text(" \n")
    (tmp_path / "item3.wav").write_bytes(b"")
    with pytest.raises(ValueError) as caught:
        list(read_all(Pairs.find(tmp_path, tiny.CONFIG, ALL)))
    message = str(caught.value)
    assert "item1.png cannot be read as an image" in message and "item3.wav is empty" in message
    assert "The caption of item2 is empty." in message and "item0" not in message


def test_unreadable_files_in_shards_and_manifests(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    shard = pack(tmp_path / "a.tar", {"k.png": tmp_path / "broken.png"})
    with pytest.raises(ValueError, match=r"a\.tar/k\.png cannot be read as an image"):
        list(read_all(Pairs.find(shard, tiny.CONFIG, ("image",))))
    (tmp_path / "m.csv").write_text("image\nabsent.png\n")
    with pytest.raises(ValueError, match="There is no file .*absent.png"):
        list(read_all(Pairs.find(tmp_path / "m.csv", tiny.CONFIG, ("image",))))


def test_broken_entries_are_left_out(tmp_path):
    own_data.make(tmp_path, 5)
    (tmp_path / "item1.png").write_bytes(b"no image")
    (tmp_path / "item2.txt").write_bytes("caf\u00e9".encode("cp1252"))
    (tmp_path / "item3.txt").unlink()
    broken = Broken(skip=True)
    pairs = check_entries(Pairs.find(tmp_path, tiny.CONFIG, ALL, broken=broken), lambda line: None, broken)
    items = list(read_all(pairs, 2, broken))
    assert [item["text"] for item in items] == ["thing number 0", "thing number 4"]
    rows = list(read_all(pairs, read=lambda row: pairs[row] and row, broken=Broken(skip=True)))
    assert [pairs.entries[row].name for row in rows] == ["item0", "item4"]
    kept = pairs.at(rows)
    assert len(kept) == 2 and same(kept[1], items[1]) and same(kept.only(("text",))[1], {"text": "thing number 4"})
    assert sorted(fault.entry for fault in broken.faults) == ["item1", "item2", "item3"]
    broken.write(tmp_path / "out" / "left_out.txt")
    lines = (tmp_path / "out" / "left_out.txt").read_text().splitlines()
    assert lines[0] == "item3: item3 has no caption." and len(lines) == 3
    assert lines[2].startswith(f"item2: Line 1 of {tmp_path}/item2.txt is not text in UTF-8")
    Broken().write(tmp_path / "out" / "left_out.txt")
    assert not (tmp_path / "out" / "left_out.txt").exists()


def test_nothing_is_left(tmp_path):
    own_data.make(tmp_path, 1)
    (tmp_path / "item0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="Nothing of .* can be read. .*item0.png cannot be read as an image"):
        list(read_all(Pairs.find(tmp_path, tiny.CONFIG, ALL), broken=Broken(skip=True)))


def test_missing_files_are_named_with_their_line(folder, tmp_path):
    rows = [f"{folder}/item0.png,zero", "absent.png,one", f"{'x' * 300}.png,two"]
    (tmp_path / "m.csv").write_text("\n".join(["image,text", *rows]))
    pairs = Pairs.find(tmp_path / "m.csv", tiny.CONFIG, ("image", "text"))
    with pytest.raises(ValueError, match="no file .*absent.png, which line 3 names. There is no file .*line 4"):
        check_entries(pairs, lambda line: None)
    broken = Broken(skip=True)
    assert [e.name for e in check_entries(pairs, lambda line: None, broken).entries] == ["line 2"]
    assert [fault.entry for fault in broken.faults] == ["line 3", "line 4"]


def ramp(path, seconds, audio=None, offset=0.0):
    """A video whose brightness is the time over 10 s; audio whose level is the same plus an offset."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", 10)
        video.width, video.height, video.pix_fmt, video.bit_rate = 64, 64, "yuv420p", 4_000_000
        track = out.add_stream("pcm_s16le", 16000, layout="mono") if audio else None
        for k in range(round(seconds * 10)):
            grey = np.full((64, 64, 3), round(255 * k / 100), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if track:
            out.mux(track.encode(level(audio, offset)))
            out.mux(track.encode(None))


def level(seconds, offset=0.0):
    values = (np.arange(round(seconds * 16000)) / 160000 + offset) * 32767
    frame = av.AudioFrame.from_ndarray(values.astype(np.int16)[None], "s16", "mono")
    frame.sample_rate, frame.pts = 16000, 0
    return frame


def wav(path, seconds, offset=0.0):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", 16000, layout="mono")
        out.mux(stream.encode(level(seconds, offset)))
        out.mux(stream.encode(None))


TIMED = replace(tiny.CONFIG, image_autoencoder=replace(tiny.CONFIG.image_autoencoder, frames=4, frame_rate=6.25))
"""0.64 s of both audio and video."""


def begins(item):
    """When audio and video of an item of `ramp` begin, in seconds."""
    return float(item["audio"][0, 0]) * 10, float(item["video"][:, 0].mean()) * 10


@pytest.mark.parametrize("packed", [False, True])
def test_the_audio_of_a_video(tmp_path, packed):
    data = tmp_path / "data"
    data.mkdir()
    ramp(data / "a.mov", 1.0, 1.0)
    ramp(data / "b.mov", 1.0)
    ramp(data / "c.mov", 1.0, 1.0)
    wav(data / "c.wav", 1.0, 0.5)
    if packed:
        data = pack(tmp_path / "s.tar", {f.name: f for f in sorted(data.iterdir())})
    lines = []
    pairs = check_entries(Pairs.find(data, TIMED, ("video", "audio")), lines.append)
    assert [entry.name[-1] for entry in pairs.entries] == ["a", "c"]
    assert "2 with audio (1 of the audio tracks are those of videos); 2 with video and audio." in lines[0]
    assert float(pairs[0]["audio"][0, 1600]) == pytest.approx(0.01, abs=1e-3)
    assert float(pairs[1]["audio"][0, 1600]) == pytest.approx(0.51, abs=1e-3)
    assert [e.name[-1] for e in Pairs.find(data, TIMED, ("video",)).every if "audio" in e.contents] == ["c"]


def test_broken_videos_are_not_taken_for_silent(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="a.mp4 cannot be read"):
        list(read_all(Pairs.find(tmp_path, TIMED, ("audio",))))


def test_audio_and_video_are_cropped_at_the_same_time(tmp_path):
    ramp(tmp_path / "a.mov", 4.0)
    wav(tmp_path / "a.wav", 3.0)
    pairs = Pairs.find(tmp_path, TIMED, ("video", "audio"))
    assert pairs.spare(0) == pytest.approx(3.0 - 0.64, abs=0.01)
    for position in (0.0, 0.3, 0.5, 1.0):
        start = position * (3.0 - 0.64)
        audio, video = begins(pairs.read(0, position))
        assert audio == pytest.approx(start, abs=0.01) and video == pytest.approx(start, abs=0.2)
    last = pairs.read(0, 1.0)
    assert float(last["audio"][0, -1]) * 10 == pytest.approx(3.0, abs=0.01)
    assert Pairs.find(tmp_path, TIMED, ("video",)).spare(0) == pytest.approx(4.0 - 0.64, abs=0.01)


def test_batches_crop_anew(tmp_path):
    wav(tmp_path / "a.wav", 5.0)
    wav(tmp_path / "b.wav", 0.5)
    pairs = Pairs.find(tmp_path, TIMED, ("audio",))
    starts = []
    for step in range(30):
        audio = pairs.batch(step, 2, 7)["audio"]
        assert torch.equal(audio, Pairs.find(tmp_path, TIMED, ("audio",)).batch(step, 2, 7)["audio"])
        long, short = sorted(audio[:, 0], key=lambda samples: -float(samples.max()))
        starts.append(float(long[0]) * 10)
        assert float(short[0]) == 0 and float(short[7999]) > 0 and not short[8010:].any()
    assert min(starts) < 0.7 and max(starts) > 3.6 and max(starts) <= 4.36 + 0.01
    assert len({round(start, 2) for start in starts}) > 25
    other = pairs.batch(0, 2, 8)["audio"]
    assert not any(torch.equal(a, b) for a in other for b in pairs.batch(0, 2, 7)["audio"] if float(b.max()) > 0.06)


@pytest.mark.parametrize(("seconds", "positions"), [(0.3, [0]), (0.9, [0]), (1.2, [0, 1]), (9.0, [0, 1 / 3, 2 / 3, 1])])
def test_crops_of_what_is_encoded_once(tmp_path, seconds, positions):
    wav(tmp_path / "a.wav", seconds)
    assert Pairs.find(tmp_path, TIMED, ("audio",)).crops(0, 4) == pytest.approx(positions)


def test_images_have_one_crop(folder):
    pairs = Pairs.find(folder, tiny.CONFIG, ("image", "text"))
    assert pairs.crops(0, 4) == [0] and pairs.spare(0) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "There is no .*absent: give a folder"),
        ("notes.md", "x", "notes.md is not training data"),
        ("a.csv", "picture,words\na.png,b\n", "none of the columns text, image, video, audio"),
        ("a.jsonl", '{"image": "a.png"}\n{"image\n', "Line 2 of .*a.jsonl is not JSON"),
        ("b.jsonl", "[1]\n", "Line 1 of .*b.jsonl is not a JSON object"),
        ("c.jsonl", '{"text": 3}\n', "Line 1 of .*c.jsonl has 3 as text: give a text"),
        ("d.csv", "image,text\n", "has no training data"),
        ("a.tar", "no tar", "cannot be read as an uncompressed tar"),
    ],
)
def test_data_that_cannot_be_found(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_entries(tmp_path / name)


def test_folders_without_content(tmp_path):
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(ValueError, match="has no training data: give files that end in .txt, .caption, .png"):
        find_entries(tmp_path)
    own_data.write_image(tmp_path / "a.png", "red")
    own_data.write_image(tmp_path / "a.jpg", "red")
    with pytest.raises(ValueError, match="a.jpg and .*a.png have one name and are both image"):
        find_entries(tmp_path)


def test_a_model_without_the_modality(folder):
    with pytest.raises(ValueError, match="has no audio autoencoder: train without audio"):
        Pairs.find(folder, replace(tiny.CONFIG, audio_autoencoder=None), ALL)
