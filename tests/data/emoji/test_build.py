"""The dataset made from miniature packages: files, manifest, splits, licences; made again, and gone on with."""

import csv
import hashlib
import json
import shutil
from collections import defaultdict

import emoji_packages
import numpy as np
import pytest
import tiny
import torch
from emoji_packages import APPLE, FRANCE, KEYCAP, VIOLIN
from PIL import Image

from codi_backend.data.emoji.build import build, settings_of
from codi_backend.data.emoji.speech import HELD_OUT, VOICES
from codi_backend.data.entries import find_entries
from codi_backend.data.pairs import Pairs
from codi_backend.evaluation.onsets import audio_onsets
from codi_backend.media.read import read_audio, read_video

pytest.importorskip("resvg_py")
SILENT = ("images", "videos", "speech", "samples")
PERMISSIVE = {"MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "Unicode-3.0", "LicenseRef-espeak-ng-output"}


def make(out, registry, kinds=SILENT, size=64):
    return build(out, registry, size, kinds, lambda items, what, count: items)


def rows_of(out):
    with open(out / "metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(out):
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory, registry):
    """All but the instruments; tests do not change it."""
    out = tmp_path_factory.mktemp("made") / "out"
    make(out, registry)
    return out


def test_every_file_is_in_the_manifest_and_every_path_is_a_file(made):
    media = {str(path.relative_to(made)) for path in made.rglob("*.*") if path.parent != made}
    named = {row[kind] for row in rows_of(made) for kind in ("image", "video", "audio")} - {""}
    assert media == named


def test_images(made):
    assert {path.stem for path in (made / "images/noto").iterdir()} == {APPLE, VIOLIN}
    assert {path.stem for path in (made / "images/flat").iterdir()} == {APPLE, VIOLIN, FRANCE, KEYCAP}
    assert {path.stem for path in (made / "images/3d").iterdir()} == {APPLE, VIOLIN}  # flags are not Fluent's own
    image = Image.open(made / "images/noto" / f"{APPLE}.png")
    assert image.size == (64, 64) and image.mode == "RGB"
    assert (image.getpixel((32, 32)), image.getpixel((2, 2))) == ((255, 0, 0), (255, 255, 255))
    assert np.all(np.array(image)[16:48, 16:48] == (255, 0, 0))  # 16 of 32 units


def test_size(tmp_path, registry):
    make(tmp_path / "large", registry, ("images", "videos"), 128)
    assert Image.open(tmp_path / "large/images/3d" / f"{APPLE}.png").size == (128, 128)
    assert read_video(tmp_path / "large/videos/3d" / f"{APPLE}.webp", 16).shape == (3, 16, 128, 128)


def test_videos(made):
    assert [path.name for path in (made / "videos/3d").iterdir()] == [f"{APPLE}.webp"]
    video = read_video(made / f"videos/3d/{APPLE}.webp", 16, 6.25)
    assert video.shape == (3, 16, 64, 64)
    # The square moves 6 pixels each 0.1 s, and starts anew after 0.8 s.
    left = [int((frame[1] < 0.5).any(0).nonzero()[0]) for frame in video.unbind(1)]
    assert left == [6 * int(((i * 0.16 + 1e-6) % 0.8) / 0.1) for i in range(16)]


def test_audio_is_of_the_length_of_the_model(made):
    for path in made.rglob("*.flac"):
        waveform, rate = read_audio(path)
        assert (waveform.shape, rate) == ((1, 40960), 16000)
        assert waveform.abs().max() == pytest.approx(0.6, abs=0.01)
    speech, _ = read_audio(made / f"speech/{VOICES[0].name.replace('+', '-')}/{APPLE}.flac")
    assert not speech[0, :1590].any() and speech[0, 1700:20000].abs().max() > 0.5
    loud = speech[0].abs() > 0.01
    assert loud.nonzero()[-1] / 16000 == pytest.approx(0.1 + 0.5 + 0.1 * len("red apple"), abs=0.02)


def test_names_that_are_too_long_are_not_spoken(made):
    spoken = {row["concept"] for row in rows_of(made) if row["kind"] == "speech"}
    assert spoken == {"red apple", "violin", "flag of France", "keycap 1"}


def test_captions(made):
    texts = {(row["kind"], row["image"]): row["text"] for row in rows_of(made)}
    assert texts["image", f"images/twemoji/{FRANCE}.png"] == "the flag of France, Twemoji style"
    assert texts["video", f"images/3d/{APPLE}.png"] == "a red apple, 3D style, moving"
    assert 'an American man says "violin"' in {row["text"] for row in rows_of(made)}
    joint = texts["image+speech", f"images/3d/{APPLE}.png"]
    assert joint.startswith("a red apple, 3D style, moving, and a") and joint.endswith(' says "red apple"')


def test_splits(made):
    rows = rows_of(made)
    assert {row["split"] for row in rows} == {"train", "test"}
    for row in rows:
        if row["kind"] == "speech":
            assert (row["split"] == "test") == (row["voice"] in HELD_OUT)
        if row["kind"] == "image+speech":
            pair = next(r for r in rows if r["kind"] == "image" and r["image"] == row["image"])
            assert row["split"] == pair["split"] and (row["voice"] in HELD_OUT) == (row["split"] == "test")


def test_an_image_has_several_voices(made):
    voices = defaultdict(list)
    for row in rows_of(made):
        if row["kind"] == "image+speech":
            voices[row["image"], row["split"]].append(row["voice"])
    assert all(len(set(names)) == len(names) == (2 if split == "test" else 3) for (_, split), names in voices.items())
    assert len({tuple(names) for (_, split), names in voices.items() if split == "train"}) > 1


def test_licences(made):
    for row in rows_of(made):
        assert row["source"] and set(row["licence"].split(" AND ")) <= PERMISSIVE
    (twemoji,) = {row["licence"] for row in rows_of(made) if row["source"] == "@iconify-json/twemoji"}
    assert twemoji == "CC-BY-4.0"
    text = (made / "ATTRIBUTIONS.md").read_text()
    for words in ("Twitter", "Google", "Microsoft", "Unicode", "espeak-ng", "CC-BY-4.0", "GPL-3.0"):
        assert words in text
    assert "soundfont" not in text.partition("Changes")[0]


def test_the_reader_trains_on_the_training_rows(made):
    notes = []
    entries = find_entries(made, notes.append)
    assert len(entries) == sum(row["split"] == "train" for row in rows_of(made))
    assert any("another split than train: test" in note for note in notes)
    pairs = Pairs.find(made, tiny.CONFIG, ("image", "audio", "text"))
    item = pairs[0]
    assert item["image"].shape[0] == 3 and item["audio"].shape[0] == 1 and "says" in item["text"]


def test_the_same_bytes_again(made, registry, tmp_path):
    make(tmp_path / "again", registry)
    assert digests(tmp_path / "again") == digests(made)


def test_going_on(made, registry, tmp_path):
    made = shutil.copytree(made, tmp_path / "out")
    before = digests(made)
    kept = made / f"images/noto/{APPLE}.png"
    stamp = kept.stat().st_mtime_ns
    for name in ("metadata.csv", "index.html", f"images/3d/{VIOLIN}.png", f"videos/3d/{APPLE}.webp"):
        (made / name).unlink()
    next((made / "speech").rglob("*.flac")).unlink()
    make(made, registry)
    assert digests(made) == before and kept.stat().st_mtime_ns == stamp


def test_an_interruption_leaves_no_half_file(tmp_path, registry, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("codi_backend.data.emoji.files.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", registry, ("samples",))
    assert not list((tmp_path / "out").rglob("*.flac")) and not list((tmp_path / "out").rglob(".writing*"))


def test_kinds_are_added_to_a_folder(tmp_path, registry):
    out = tmp_path / "out"
    make(out, registry, settings_of(out, 64, ["samples"]))
    assert {row["kind"] for row in rows_of(out)} == {"sample"}
    assert settings_of(out, 64, ["images"]) == ("images", "samples")
    make(out, registry, ("images", "samples"))
    assert {row["kind"] for row in rows_of(out)} == {"image", "sample"}


def test_the_page_needs_no_network(made):
    page = (made / "index.html").read_text()
    assert page.count("<figure>") > 20 and "http" not in page and 'src="data:image/webp' in page


def test_the_description(made):
    info = json.loads((made / "dataset.json").read_text())
    assert info["size"] == 64 and info["kinds"] == list(SILENT) and info["packages"]["@iconify-json/noto"] == "1.2.9"
    assert info["held-out voices"] == sorted(HELD_OUT) and info["espeak-ng"] == "eSpeak NG text-to-speech: 0.0"
    assert info["rows"]["image"]["train"] + info["rows"]["image"]["test"] == 12


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Three performances in both orders, by the synthesizer on its own."""
    pytest.importorskip("tinysoundfont")
    from codi_backend.data.emoji.performances import performances
    from codi_backend.data.emoji.synthesizer import Synthesizer

    path = tmp_path_factory.mktemp("font") / "font.sf2"
    path.write_bytes(emoji_packages.soundfont())
    names = ("violin-4-slow-level", "piano-3-quick-rising-high", "drum-2-quick")
    chosen = [p for p in performances() if p.name in names]
    one, other = Synthesizer(path), Synthesizer(path)
    forth = [one.play(p) for p in chosen]
    back = [other.play(p) for p in chosen[::-1]][::-1]
    return chosen, forth, back


def test_notes_sound_when_the_caption_says(played):
    for performance, wave, _ in zip(*played):
        assert wave.shape == (40960,) and np.abs(wave).max() == pytest.approx(0.6)
        onsets = [time for time, _ in performance.notes]
        found = audio_onsets(torch.from_numpy(wave), 16000)
        assert np.abs(np.subtract.outer(onsets, found)).min(1).max() < 0.03
        assert len(found) <= len(onsets) + 1  # this soundfont's tones end audibly


def test_notes_have_their_pitch(played):
    violin, wave = played[0][0], played[1][0]
    time, key = violin.notes[1]
    first = round(16000 * (time + 0.05))
    spectrum = np.abs(np.fft.rfft(wave[first : first + 6400] * np.hanning(6400)))
    assert spectrum.argmax() * 2.5 == pytest.approx(440 * 2 ** ((key - 69) / 12), rel=0.01)


def test_a_performance_does_not_depend_on_the_one_before(played):
    assert all(np.array_equal(one, other) for _, one, other in zip(*played))


def test_instruments_join_the_images_of_their_emoji(tmp_path, registry, monkeypatch):
    pytest.importorskip("tinysoundfont")
    from codi_backend.data.emoji import performances

    few = [p for p in performances.performances() if p.instrument.name == "violin" and p.count == 2]
    few += [p for p in performances.performances() if p.name == "drum-2-quick"]
    monkeypatch.setattr("codi_backend.data.emoji.build.performances", lambda: few)
    make(tmp_path / "out", registry, ("images", "instruments"))
    rows = rows_of(tmp_path / "out")
    alone = [row for row in rows if row["kind"] == "instrument"]
    joined = [row for row in rows if row["kind"] == "image+instrument"]
    assert len(alone) == len(few) and len(joined) == len(few) - 1  # no emoji of a drum here
    split = {row["audio"]: row["split"] for row in alone}
    for row in joined:
        assert row["emoji"] == "🎻" and VIOLIN in row["image"] and " style, and a violin plays two " in row["text"]
        assert row["split"] == "test" or split[row["audio"]] == "train"
        assert set(row["source"].split("; ")) > {"fluid-soundfont-gm"}


@pytest.mark.parametrize("name", ["food", "food-fruit"])
def test_some_groups(registry, tmp_path, name):
    """Only these concepts, and those that instruments show."""
    out = tmp_path / "food"
    groups = [name]
    build(out, registry, 64, ["images", "speech"], lambda items, what, count: items, groups)
    assert {row["concept"] for row in rows_of(out)} == {"red apple", "violin"}
    assert settings_of(out, 64, ["images"], groups) == ("images", "speech")
    with pytest.raises(ValueError, match=f"holds the groups {name}: choose these, or another folder"):
        settings_of(out, 64, ["images"])
    with pytest.raises(ValueError, match="no group 'fruit': choose from smileys, people, animals"):
        settings_of(tmp_path / "new", 64, ["images"], ["fruit"])
