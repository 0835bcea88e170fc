"""Parts in time of joint latents, masks over time, and what the shapes of streams tell about their axes."""

import pytest
import torch
from host import core_models as core


@pytest.fixture
def axes(host):
    return host.module("nodes.runtime.stream_axes")


@pytest.fixture
def cut(run_node):
    def call(latent, start=0.0, length=0.5, unit="share", **given):
        return run_node("CoDiSliceLatent", samples=latent, unit=unit, start=start, length=length, **given)[0]

    return call


def nested(*streams):
    from comfy.nested_tensor import NestedTensor

    return {"samples": NestedTensor(streams)}


def counting(shape, axis):
    """A stream whose values are the numbers of its steps."""
    steps = torch.arange(float(shape[axis])).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return steps.expand(shape).clone()


def steps_of(stream, axis):
    values = stream.movedim(axis, 0).flatten(1)
    assert (values == values[:, :1]).all()
    return values[:, 0].int().tolist()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 4, 8, 8), "HW"),
        ((1, 16, 8, 12), "HW"),
        ((1, 24, 7, 4, 6), "THW"),
        ((1, 64, 215), "T"),
        ((1, 8, 25, 16), "TF"),
        ((1, 8, 32, 8), "TF"),
        ((1, 8, 16, 16), "TF"),
        ((1, 8, 16, 130), "FT"),
        ((1, 32, 2, 37), "FT"),
        ((1, 32, 8, 8), "HW"),
        ((1, 768, 1, 1), ""),
    ],
)
def test_axes_follow_from_shapes(axes, shape, expected):
    assert axes.axes_of(shape) == expected


def test_the_shapes_are_those_of_the_host(axes):
    """What the pack knows of LTX-2 and MiniMax H3 is what ComfyUI knows."""
    import comfy.latent_formats
    from comfy.ldm.lightricks.symmetric_patchifier import AudioPatchifier
    from comfy.ldm.minimax.model import FRAME_PER_TOKEN
    from comfy_extras.nodes_minimax_h3 import _empty_av_latent

    for length in (5, 22, 90):
        latent, frames = _empty_av_latent(64, 32, length)
        shapes = [z.shape for z in latent["samples"].unbind()]
        assert [axes.axes_of(shape) for shape in shapes] == ["THW", "FT"]
        grid = axes.time_grid(shapes[0], "THW")
        counts = [FRAME_PER_TOKEN[step % 5] for step in range(grid.steps)]
        assert sum(counts) == frames
        assert [round(edge * frames) for edge in grid.edges] == [sum(counts[:i]) for i in range(grid.steps + 1)]
        assert axes.duration_of(shapes) == pytest.approx(frames / 24, abs=0.5 / 40)
    ltx = comfy.latent_formats.LTXAV
    video, audio = core.ltx_latent(0)["samples"].unbind()
    assert (ltx.latent_channels, ltx.temporal_downscale_ratio) == (128, 8)
    grid = axes.time_grid(video.shape, "THW")
    assert [round(edge * 25) for edge in grid.edges] == [0, 1, 9, 17, 25]
    patchifier = AudioPatchifier(1, start_end=True)
    rate = patchifier.sample_rate / patchifier.hop_length / patchifier.audio_latent_downsample_factor
    assert axes.duration_of([video.shape, audio.shape]) == audio.shape[2] / rate


def test_streams_of_ltx_are_cut_at_the_same_times(cut):
    """25 frames a second: video steps end at frames 1, 9, 17, 25; audio steps are of one frame each."""
    joint = nested(counting((1, 128, 4, 2, 3), 2), counting((1, 8, 25, 16), 2))
    for given, video, audio in (
        ({"length": 0.68}, [0, 1, 2], range(17)),
        ({"start": 0.68, "length": 1.0}, [2, 3], range(16, 25)),  # step 2 decodes to its last frame, 16
        ({"unit": "seconds", "length": 0.36}, [0, 1], range(9)),
        ({"unit": "seconds", "start": -0.36, "length": 0.36}, [2, 3], range(16, 25)),
        ({"unit": "seconds", "start": -0.72, "length": 0.72, "duration": 2.0}, [2, 3], range(16, 25)),
        ({"unit": "steps", "start": 1, "length": 2}, [1, 2], range(8, 17)),
        ({"unit": "steps", "start": -1, "length": 1}, [3], range(24, 25)),
        ({"unit": "steps", "start": 9, "length": 8, "stream": "audio"}, [1, 2], range(9, 17)),
        ({"length": 5.0}, [0, 1, 2, 3], range(25)),
    ):
        streams = cut(joint, **given)["samples"].unbind()
        assert [steps_of(z, 2) for z in streams] == [video, list(audio)], given


def test_h3_is_cut_between_its_blocks(cut):
    """Parts have 5 n + 2 steps, 17 n + 5 frames, and begin at a multiple of 17 frames."""
    joint = nested(counting((1, 24, 17, 2, 2), 2), counting((1, 32, 2, 93), 3))  # 56 frames, 2.33 s
    for given, video, audio in (
        ({"length": 0.1}, range(2), (0, 8)),
        ({"start": 0.28, "length": 0.4}, range(5, 12), (28, 65)),
        ({"unit": "seconds", "start": 1.4, "length": 9.0}, range(10, 17), (56, 93)),
        ({"length": 1.0}, range(17), (0, 93)),
        ({"unit": "steps", "start": 5, "length": 7}, range(5, 12), (28, 65)),
    ):
        streams = cut(joint, **given)["samples"].unbind()
        assert steps_of(streams[0], 2) == list(video), given
        assert steps_of(streams[1], 3) == list(range(*audio)), given
    with pytest.raises(ValueError, match=r"^start: video cannot begin at step 3; choose one of 0, 5, 10, 15\."):
        cut(joint, unit="steps", start=3, length=2)
    with pytest.raises(ValueError, match=r"^length: video cannot have 4 steps; choose one of 2, 7, 12\."):
        cut(joint, unit="steps", start=5, length=4)


def test_streams_without_time_are_kept(cut):
    image, sound, text = torch.randn(2, 4, 8, 8), counting((2, 64, 40), 2), torch.randn(2, 24, 1, 1)
    part = cut(nested(image, sound, text), start=0.25, length=0.5)["samples"].unbind()
    assert torch.equal(part[0], image) and torch.equal(part[2], text)
    assert steps_of(part[1], 2) == list(range(10, 30))
    with pytest.raises(ValueError, match="^samples: no stream of this latent has time"):
        cut(nested(image, text))
    with pytest.raises(ValueError, match="^stream: image has no time"):
        cut(nested(image, sound), unit="steps", start=0, length=2)


def test_axes_may_be_given(cut):
    """Those of a latent whose shape tells nothing, such as two seconds of ACE-Step."""
    sound = counting((1, 8, 16, 16), 3)
    part = cut(nested(torch.zeros(1, 16, 4, 4), sound), length=0.5, axes="hw, ft")["samples"].unbind()[1]
    assert steps_of(part, 3) == list(range(8))
    for given, message in (("HW", "there are 1 for 2"), ("HW, THW", "does not have axes THW"), ("HW, XY", "axes XY")):
        with pytest.raises(ValueError, match=f"^axes: .*{message}"):
            cut(nested(torch.zeros(1, 16, 4, 4), sound), axes=given)


def test_masks_are_cut_with_their_streams(cut, host):
    """Of any size that samplers accept: of each step, of all steps, of frames, or of another number of steps."""
    from comfy.nested_tensor import NestedTensor

    joint = nested(torch.zeros(1, 4, 8, 4, 4), torch.zeros(1, 8, 16, 16))
    steps = torch.arange(16.0)[None, None, :, None]
    frames = torch.arange(8.0)[:, None, None, None].expand(8, 1, 4, 4)
    part = cut(joint | {"noise_mask": NestedTensor([frames, steps])}, start=0.25, length=0.5)
    video, audio = part["noise_mask"].unbind()
    assert video.shape == (1, 1, 4, 4, 4) and steps_of(video, 2) == [2, 3, 4, 5]
    assert audio.shape == (1, 1, 8, 1) and steps_of(audio, 2) == list(range(4, 12))
    same = torch.rand(1, 1, 1, 4, 4)
    part = cut(joint | {"noise_mask": NestedTensor([same, torch.ones(1, 1, 8, 1)])}, start=0.25, length=0.5)
    assert torch.equal(part["noise_mask"].unbind()[0], same) and part["noise_mask"].unbind()[1].shape[2] == 8
    plain = cut(joint | {"noise_mask": frames}, start=0.25, length=0.5)["noise_mask"].unbind()
    assert steps_of(plain[0], 2) == [2, 3, 4, 5] and plain[1].shape[2] == 8
    odd = nested(torch.zeros(1, 64, 8), torch.zeros(1, 4, 8, 4, 4)) | {"noise_mask": torch.ones(1, 1, 8, 8)}
    with pytest.raises(ValueError, match="^samples: a mask of shape .* set it with CoDi Set Stream Mask"):
        cut(odd)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unit": "frames"}, "unit: 'frames' is none"),
        ({"start": 1.0}, "start: 1 is outside"),
        ({"start": -1.5}, "start: -1.5 is outside"),
        ({"start": float("nan")}, "start: "),
        ({"length": 0.0}, "length: "),
        ({"length": -1.0}, "length: "),
        ({"unit": "seconds"}, "duration: the duration of latents of these models is not known"),
        ({"unit": "seconds", "duration": -1.0}, "duration: "),
        ({"unit": "steps", "length": 1.5}, "length: 1.5 is no whole number"),
        ({"unit": "steps", "start": 8, "length": 1}, "start: there is no step 8 in video, which has 8"),
        ({"unit": "steps", "start": 0, "length": 0}, "length: "),
        ({"unit": "steps", "stream": "3", "length": 1}, "stream: there is no stream 3"),
    ],
)
def test_parts_that_do_not_exist(cut, given, message):
    joint = nested(torch.zeros(1, 4, 8, 4, 4), torch.zeros(1, 8, 16, 8))
    with pytest.raises(ValueError, match=f"^{message}"):
        cut(joint, **given)


@pytest.fixture
def mask_of(run_node):
    """The mask that the node gives stream 1."""

    def call(stream, start=0.0, end=1.0, axes="", **given):
        latent = {"samples": stream} if torch.is_tensor(stream) else stream
        made = run_node("CoDiSetStreamMask", samples=latent, stream="1", start=start, end=end, axes=axes, **given)
        mask = made[0]["noise_mask"]
        return mask if torch.is_tensor(mask) else mask.unbind()[0]

    return call


def test_masks_over_time(mask_of):
    """Steps whose middle is within start and end are generated."""
    ltx = torch.zeros(1, 128, 4, 2, 3)  # steps end at frames 1, 9, 17, 25 of 25
    assert steps_of(mask_of(ltx, 0.2, 0.7), 2) == [0, 1, 1, 0]
    assert steps_of(mask_of(ltx, 0.0, 0.2), 2) == [1, 0, 0, 0]
    assert steps_of(mask_of(torch.zeros(1, 8, 10, 16), 0.5, 1.0), 2) == [0] * 5 + [1] * 5
    assert steps_of(mask_of(torch.zeros(1, 32, 2, 10), 0.0, 0.3), 3) == [1] * 3 + [0] * 7
    assert steps_of(mask_of(torch.zeros(1, 64, 10), 0.0, 0.3), 2) == [1] * 3 + [0] * 7
    assert mask_of(torch.zeros(1, 64, 10)).mean() == 1


def test_masks_over_places_and_frames(mask_of):
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    image = mask_of(torch.zeros(2, 4, 8, 8), mask=left)
    assert torch.equal(image, left[:, None])
    small = mask_of(torch.zeros(2, 4, 4, 4), mask=left)
    assert torch.equal(small[0, 0], left[0, ::2, ::2])
    video = mask_of(torch.zeros(1, 4, 5, 8, 8), 0.0, 0.6, mask=left)
    assert torch.equal(video[0, 0, :3], left.expand(3, -1, -1)) and not video[0, 0, 3:].any()
    # The mask of 25 frames: the last 8 frames are the last step of LTX-2.
    frames = (torch.arange(25) >= 17).float()[:, None, None].expand(25, 8, 8)
    assert steps_of(mask_of(torch.zeros(1, 128, 4, 2, 3), mask=frames), 2) == [0, 0, 0, 1]
    assert steps_of(mask_of(torch.zeros(1, 8, 25, 16), mask=frames), 2) == [0] * 17 + [1] * 8
    assert steps_of(mask_of(torch.zeros(1, 8, 8, 16), mask=left), 2) == [1] * 4 + [0] * 4  # columns are times
    assert steps_of(mask_of(torch.zeros(1, 64, 16), mask=left), 2) == [1] * 8 + [0] * 8


def test_masks_of_images_that_differ(mask_of):
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    assert torch.equal(mask_of(torch.zeros(2, 4, 8, 8), mask=masks), masks[:, None])
    with pytest.raises(ValueError, match="^mask: there are 2 masks for 3 images"):
        mask_of(torch.zeros(3, 4, 8, 8), mask=masks)


def test_masks_are_those_that_samplers_use(mask_of):
    """ComfyUI's own function that sizes masks leaves them as they are."""
    import comfy.sampler_helpers

    for stream in (torch.zeros(1, 128, 4, 2, 3), torch.zeros(1, 8, 25, 16), torch.zeros(1, 64, 10)):
        mask = mask_of(stream, 0.2, 0.7)
        sized = comfy.sampler_helpers.prepare_mask(mask, stream.shape, "cpu")
        torch.testing.assert_close(sized, mask.expand_as(stream))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": 0.5, "end": 0.5}, "start: it is not below end"),
        ({"start": -1.0}, "start: "),
        ({"end": 2.0}, "end: "),
        ({"start": 0.41, "end": 0.42}, "end: no step lies between"),
        ({"mask": torch.zeros(0, 8, 8)}, "mask: this is no mask with content"),
        ({"mask": torch.full((1, 8, 8), float("nan"))}, "mask: "),
        ({"mask": torch.full((1, 8, 8), 255.0)}, "mask: "),
        ({"mask": "mask"}, "mask: this is no mask"),
    ],
)
def test_masks_that_cannot_be(mask_of, given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        mask_of(torch.zeros(1, 8, 10, 16), **given)


def test_masks_of_streams_without_time_or_places(mask_of, run_node):
    with pytest.raises(ValueError, match="^stream: image has no time"):
        mask_of(torch.zeros(1, 4, 8, 8), start=0.5)
    with pytest.raises(ValueError, match="^stream: text has no places"):
        mask_of(torch.zeros(1, 24, 1, 1), mask=torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="^stream: 'speech' is neither a number nor the name"):
        run_node("CoDiSetStreamMask", samples={"samples": torch.zeros(1, 64, 4)}, stream="speech", start=0.0, end=1.0)
