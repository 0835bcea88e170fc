"""Augmentation of contents and of captions."""

from dataclasses import replace

import numpy as np
import own_data
import pytest
import tiny
import torch

from codi_backend.data.augmentation import NONE, UNCHANGED, Augmentation, Variation
from codi_backend.data.pairs import Pairs
from codi_backend.data.phrases import partial
from codi_backend.media.write import save_video


def drawn(augmentation, count=200):
    rng = np.random.default_rng(0)
    return [augmentation.draw(rng) for _ in range(count)]


def test_changes_stay_in_their_ranges():
    some = drawn(Augmentation(crop=0.3, colour=0.2, speed=0.1))
    for one in some:
        assert 0 <= one.crop <= 0.3 and one.left >= 0 and one.top >= 0 and max(one.left, one.top) <= one.crop
        assert all(0.8 <= value <= 1.2 for value in (one.brightness, one.contrast, one.saturation))
        assert 0.9 <= one.speed <= 1.1 and one.speed == round(one.speed, 2)
    assert len({one.speed for one in some}) == 11 and len({one.crop for one in some}) == 200
    assert set(drawn(NONE)) == {UNCHANGED}


def test_copies_are_the_same_every_time():
    augmentation = Augmentation(crop=0.3, speed=0.2, copies=3)
    assert augmentation.copy(0, 5) == UNCHANGED
    assert augmentation.copy(1, 5) == augmentation.copy(1, 5) != augmentation.copy(2, 5)
    assert augmentation.copy(1, 5).crop != augmentation.copy(1, 6).crop
    assert len({augmentation.copy(1, content).speed for content in range(9)}) == 1


def test_pixels():
    frames = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(UNCHANGED.of_pixels(frames), frames)
    half = torch.zeros(1, 3, 16, 16)
    half[..., 8:] = 1
    right = Variation(crop=0.5, left=0.5).of_pixels(half)
    assert right.shape == half.shape and right.min() > 0.99
    assert Variation(crop=0.5).of_pixels(half).max() < 0.01
    torch.testing.assert_close(Variation(brightness=0.5).of_pixels(frames), frames / 2)
    grey = Variation(saturation=0.0).of_pixels(frames)
    torch.testing.assert_close(grey, frames.mean(1, keepdim=True).expand_as(frames))
    torch.testing.assert_close(Variation(contrast=0.5).of_pixels(frames), 0.25 + frames / 2)


def test_speed(tmp_path):
    own_data.write_audio(tmp_path / "a.wav", 400, 2.0, 16000)
    save_video(tmp_path / "a.mp4", torch.linspace(0, 1, 8)[None, :, None, None].expand(3, 8, 32, 32), 6.25)
    config = replace(tiny.CONFIG, image_autoencoder=replace(tiny.CONFIG.image_autoencoder, frames=4, frame_rate=6.25))
    pairs = Pairs.find(tmp_path, config, ("audio", "video"))
    for speed in (1.0, 1.5):
        item = pairs.read(0, variation=Variation(speed=speed))
        spectrum = torch.fft.rfft(item["audio"][0]).abs()
        assert int(spectrum.argmax()) * 16000 / 10240 == pytest.approx(400 * speed, abs=2)
        expected = torch.linspace(0, 1, 8)[[round(speed * i - 0.01) for i in range(4)]]
        torch.testing.assert_close(item["video"].mean((0, 2, 3)), expected, atol=0.16, rtol=0)


def test_batches_are_augmented_and_items_are_not(tmp_path):
    for i in range(2):
        own_data.write_image(tmp_path / f"{i}.png", (100, 60, 20))
    entries = Pairs.find(tmp_path, tiny.CONFIG, ("image",)).every
    pairs = Pairs(entries, tiny.CONFIG, ("image",), augmentation=Augmentation(colour=0.3))
    plain = Pairs(entries, tiny.CONFIG, ("image",))
    assert torch.equal(pairs[0]["image"], plain[0]["image"])
    batch = pairs.batch(3, 2, 0)["image"]
    assert torch.equal(batch, pairs.batch(3, 2, 0)["image"]) and not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch, pairs.batch(4, 2, 0)["image"])
    assert torch.equal(plain.batch(3, 2, 0)["image"][0], plain[0]["image"])


def test_phrases():
    rng, caption = np.random.default_rng(0), 'a red apple, flat style, and a man says "red apple"'
    assert partial(caption, rng, 0.0) == caption and partial(caption, rng, 1.0) == ""
    made = {partial(caption, rng, 0.5) for _ in range(200)}
    assert len(made) == 8 and 'a red apple, and a man says "red apple"' in made


@pytest.mark.parametrize(("values", "message"), [
    ({"crop": 1.0}, "crop of 1.0"), ({"colour": -0.1}, "colour of -0.1"), ({"copies": 0}, "0 copies"),
])  # fmt: skip
def test_impossible_augmentations(values, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)
