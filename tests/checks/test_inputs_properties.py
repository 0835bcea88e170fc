"""Whatever tensors an entry point of the library is given: a right result, or one sentence about the input."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import build

from codi_backend.conditioning.editing import edit_text_latent
from codi_backend.conditioning.encode import image_context
from codi_backend.conditioning.prompt import Prompt, interpolate
from codi_backend.media.colour_match import match_colour

pytestmark = pytest.mark.property

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64)
PIXELS, SAMPLES, WIDE = (0.0, 1.0), (-1.0, 1.0), (-3.0, 3.0)
# What cannot be right as a pixel, a sample, a latent or an embedding.
ABSURD = (torch.nan, torch.inf, -torch.inf, 4e4, -6e4)


@pytest.fixture(scope="module")
def codi():
    """In a function, which failures show by its name."""
    model = build(tiny.FOUR)
    return lambda: model


SIZE = {"image_size": 32, "seconds": 0.3}
PROMPT = Prompt(torch.ones(1, 1, 32), torch.zeros(1, 1, 32))


def sampled(codi, **more):
    """One step of audio."""
    return codi.generate_latents(
        **{"prompts": PROMPT, "outputs": ["audio"], "steps": 1, "candidates": 1} | SIZE | more
    )["audio"]


def tokens(pixels, mask):
    return pixels.mean((2, 3))[:, None].expand(-1, 21, -1).repeat(1, 1, 7)


# Entry point -> what it makes of a tensor, the shape and range that are right, and the result's shape.
ENTRIES = {
    "prompt image": (lambda c, x: c.prompt("image", x).embedding, (2, 3, 20, 33), PIXELS, (2, 1, 32)),
    "prompt video": (lambda c, x: c.prompt("video", x).embedding, (1, 3, 2, 9, 12), PIXELS, (1, 1, 32)),
    "prompt audio": (lambda c, x: c.prompt("audio", x, 16000).embedding, (2, 1, 4000), SAMPLES, (2, 1, 32)),
    "context": (lambda c, x: image_context(tokens, 16, x).tokens, (1, 3, 16, 20), PIXELS, (1, 21, 21)),
    "mask": (
        lambda c, x: image_context(tokens, 16, torch.ones(1, 3, 16, 16), x).tokens,
        (1, 1, 5, 4),
        PIXELS,
        (1, 21, 21),
    ),
    "encode image": (lambda c, x: c.encode("image", x), (2, 3, 16, 24), PIXELS, (2, 4, 2, 3)),
    "encode video": (lambda c, x: c.encode("video", x), (1, 3, 2, 16, 16), PIXELS, (1, 4, 2, 2, 2)),
    "encode audio": (lambda c, x: c.encode("audio", x, 16000), (1, 1, 3000), SAMPLES, (1, 8, 4, 8)),
    "decode image": (lambda c, x: c.decode("image", x), (2, 4, 2, 3), WIDE, (2, 3, 16, 24)),
    "decode video": (lambda c, x: c.decode("video", x), (1, 4, 2, 2, 2), WIDE, (1, 3, 2, 16, 16)),
    "decode audio": (lambda c, x: c.decode("audio", x), (1, 8, 2, 8), WIDE, (1, 1, 2560)),
    "held": (lambda c, x: sampled(c, held={"image": x}), (1, 4, 4, 4), WIDE, (1, 8, 4, 8)),
    "start": (lambda c, x: sampled(c, start={"audio": x}, fidelity=0.5), (1, 8, 4, 8), WIDE, (1, 8, 4, 8)),
    "prompt": (lambda c, x: sampled(c, prompts=Prompt(x, x)), (1, 1, 32), SAMPLES, (1, 8, 4, 8)),
    "interpolate": (
        lambda c, x: interpolate([(Prompt(x, x), 2), (Prompt(torch.ones(1, 1, 6), torch.ones(1, 1, 6)), 1)]).embedding,
        (2, 1, 6),
        SAMPLES,
        (2, 1, 6),
    ),
    "colour": (lambda c, x: match_colour(x, torch.rand(1, 3, 4, 4)), (2, 3, 5, 6), PIXELS, (2, 3, 5, 6)),
    "text latent": (lambda c, x: edit_text_latent(x, torch.ones(1, 8)), (3, 8), WIDE, (3, 8)),
}


def result_or_sentence(codi, name, values):
    """The result, or None where a message of ours states what is wrong."""
    try:
        return ENTRIES[name][0](codi, values)
    except ValueError as error:
        assert str(error).endswith(".") and "\n" not in str(error), error
        return None


def right(name, seed, dtype=torch.float32):
    _, shape, (low, high), _ = ENTRIES[name]
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (low + (high - low) * values).to(dtype)


@pytest.mark.parametrize("name", ENTRIES)
@given(st.integers(0, 10**6), st.sampled_from(FLOATS))
def test_right_values_give_a_finite_result_of_the_right_shape(codi, name, seed, dtype):
    result = ENTRIES[name][0](codi(), right(name, seed, dtype))
    assert tuple(result.shape) == ENTRIES[name][3] and result.isfinite().all()


@pytest.mark.parametrize("name", ENTRIES)
@given(st.integers(0, 10**6), st.sampled_from(FLOATS), st.sampled_from(ABSURD), st.data())
def test_one_absurd_value_anywhere_is_a_sentence(codi, name, seed, dtype, absurd, data):
    values = right(name, seed, dtype)
    values.view(-1)[data.draw(st.integers(0, values.numel() - 1))] = absurd
    with pytest.raises(ValueError, match="^(?!.*\n).* holds values .*: .*[.]$"):
        ENTRIES[name][0](codi(), values)


@pytest.mark.parametrize("name", ENTRIES)
@given(st.lists(st.integers(0, 4), max_size=6), st.sampled_from(FLOATS + OTHERS))
def test_any_shape_and_type(codi, name, shape, dtype):
    result = result_or_sentence(codi(), name, torch.ones(shape).to(dtype))
    assert result is None or result.isfinite().all()


@pytest.mark.parametrize("argument", ["steps", "guidance", "seed", "strength", "alignment_scale", "fidelity"])
@given(value=st.one_of(st.floats(), st.integers(), st.sampled_from(["1", None, torch.zeros(2), [1.0, 2.0]])))
def test_any_number(codi, argument, value):
    given = {argument: value}
    if isinstance(value, (int, float)) and argument == "steps" and 3 < value <= 1000:
        return  # right, and slow
    try:
        result = sampled(
            codi(), start={"audio": torch.zeros(1, 8, 4, 8)}, held={"image": torch.ones(1, 4, 4, 4)}, **given
        )
    except ValueError as error:
        assert str(error).endswith(".") and "\n" not in str(error), error
    else:
        assert result.shape == (1, 8, 4, 8) and result.isfinite().all()
