"""The image and video prompt encoder, and the preprocessing of its pixels."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detweights import det_uniform, fill_
from safetensors.torch import load_file

from codi_backend.checkpoints.encoder_names import to_reference
from codi_backend.config.reference import vision_encoder_from_reference
from codi_backend.models.encoders.preprocess import clip_pixels, square_image, square_video
from codi_backend.models.encoders.vision import ImageEncoder

GOLDEN = Path(__file__).parents[2] / "golden" / "prompts"


@pytest.fixture(scope="module")
def config():
    return vision_encoder_from_reference(json.loads((GOLDEN / "clip_small.json").read_text())["config"])


@pytest.fixture(scope="module")
def encoder(config):
    return fill_(ImageEncoder(config), "", lambda key: to_reference("image", key))


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "clip_small.safetensors")


@pytest.fixture(scope="module")
def pixels():
    """Inputs of the golden cases by the rule in `clip_small.json`, in 0..1."""

    def uniform(name, *shape):
        return torch.from_numpy((det_uniform(name, int(np.prod(shape))) * 2 - 1).reshape(shape))

    def coarse(name, *shape):
        return uniform(name, *shape).repeat_interleave(8, -1).repeat_interleave(8, -2)

    fine = uniform("clip_image_fine", 2, 3, 512, 512)
    image = (0.9 * coarse("clip_image", 2, 3, 64, 64) + 0.1 * fine).clamp(-1, 1)
    return {"image": (image + 1) / 2, "video": (coarse("clip_video", 1, 3, 4, 32, 32) + 1) / 2}


@pytest.fixture
def video():
    """A small batch for the encoder itself."""
    return torch.from_numpy(det_uniform("batch", 2 * 3 * 3 * 224 * 224).reshape(2, 3, 3, 224, 224)) * 3 - 1.5


def encode(encoder, pixels):
    with torch.inference_mode():
        return encoder(pixels)


@pytest.mark.parametrize("name", ["image", "video"])
def test_embeddings(encoder, pixels, expected, name):
    out = encode(encoder, clip_pixels(pixels[name]))
    torch.testing.assert_close(out, expected[f"{name}/out"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["image", "video"])
def test_unconditional_is_mid_grey(encoder, pixels, expected, name):
    grey = clip_pixels(torch.full_like(pixels[name], 0.5))
    torch.testing.assert_close(encode(encoder, grey), expected[f"{name}/uncond_out_zeros"], atol=1e-5, rtol=0)
    corner = grey[:1, ..., :2, :2]
    assert torch.equal(corner if name == "image" else corner[:, :, 0], expected["image/uncond_pixel_values_corner"])


def test_one_frame_is_an_image(encoder, video):
    assert torch.equal(encode(encoder, video[:, :, :1]), encode(encoder, video[:, :, 0]))


def test_attention_is_among_the_frames_of_one_video(encoder, video):
    whole = encode(encoder, video)
    assert not torch.allclose(whole, encode(encoder, video.flip(2)), atol=1e-4)
    torch.testing.assert_close(whole[1:], encode(encoder, video[1:]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(encoder, config, video, dtype):
    """Videos differ more: as in the original, the norm over frames has a larger eps in half precision."""
    half = ImageEncoder(config, dtype=dtype)
    half.load_state_dict(encoder.state_dict())
    for pixels, similarity in ((video[:, :, 0], 0.995), (video, 0.97)):
        out = encode(half, pixels.to(dtype))
        assert out.dtype == dtype and out.isfinite().all()
        assert (out.float() * encode(encoder, pixels)).sum(-1).min() > similarity


def test_gradients(encoder, video):
    inputs = video[:1, :, :2].requires_grad_()
    encoder(inputs)[..., 0].sum().backward()
    # Embeddings do not depend on these; the last two shift all scores of a softmax alike.
    unused = ("pos_embeds", "frame_rate_embeds", "logit_scale", "rel_pos_bias.net.2.bias", "k_proj.bias")
    for name, parameter in encoder.named_parameters():
        if not any(part in name for part in unused):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert inputs.grad.abs().max() > 0
    encoder.zero_grad()


def test_encoder_errors(encoder, config, video):
    def fails(message, pixels, encoder=encoder):
        with pytest.raises(ValueError, match=message):
            encoder(pixels)

    fails("clip_pixels", video[..., :200])
    fails("clip_pixels", video[:, :1])
    fails("clip_pixels", video[0, 0])
    fails("at least one image or frame", video[:, :, :0])
    fails("at least one image or frame", video[:0, :, 0])
    fails("not finite", torch.full_like(video, torch.nan))
    still = ImageEncoder(dataclasses.replace(config, temporal=False))
    fails("no temporal layers for a video of 3 frames", video, still)
    assert encode(still, video[:, :, :1]).shape == (2, 1, config.embedding_dim)


@pytest.fixture(scope="module")
def images():
    """Inputs and outputs of the golden preprocessing; inputs in 0..1, outputs in -1..1 and subsampled."""
    tensors = load_file(GOLDEN / "preprocess.safetensors")

    def enlarged(name, factor):
        small = tensors[f"{name}/in_small"].movedim(-1, 0)[None] / 255
        return small.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    inputs = {"sq": enlarged("img_sq", 5), "rect": enlarged("img_rect", 5), "video": enlarged("video", 8)}
    return inputs, tensors


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["sq", "rect"])
def test_random_crop_and_flip(images, name, seed):
    inputs, outputs = images
    out = square_image(inputs[name], generator=torch.Generator().manual_seed(seed))
    assert out.shape == (1, 3, 512, 512)
    assert torch.equal(out[0, :, ::8, ::8] * 2 - 1, outputs[f"img_{name}_seed{seed}/out_sub8"])


def test_central_crop_by_default(images):
    rectangle = images[0]["rect"]  # 400 high, 600 wide
    assert torch.equal(square_image(rectangle), square_image(rectangle[..., 100:500]))
    assert torch.equal(square_image(rectangle[..., 100:500], size=400), rectangle[..., 100:500])


def test_video_frames(images):
    inputs, outputs = images
    out = square_video(inputs["video"])
    assert out.shape == (1, 3, 4, 256, 256)
    assert torch.equal(out[0, ..., ::4, ::4] * 2 - 1, outputs["video/out_noaa_sub4"])


def test_clip_pixels_of_any_size():
    wide = torch.rand(2, 3, 40, 90)
    out = clip_pixels(wide)
    assert out.shape == (2, 3, 224, 224)
    assert torch.equal(clip_pixels(wide.unflatten(0, (1, 2)).transpose(1, 2))[0].transpose(0, 1), out)
    assert torch.equal(clip_pixels(wide.double()), out)


@pytest.mark.parametrize("prepare", [square_image, square_video, clip_pixels])
def test_preprocessing_errors(prepare):
    good = torch.rand(1, 3, 2, 8, 8) if prepare is square_video else torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="not finite"):
        prepare(good.log() * torch.nan)
    with pytest.raises(ValueError, match="at least one image or frame"):
        prepare(good[..., :0])
    for bad in (good[:, :1], good[0]):
        with pytest.raises(ValueError, match="pixels of a prompt must be"):
            prepare(bad)
