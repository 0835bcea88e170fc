"""Cheap nodes with inputs of the types that they declare, whatever these hold: a result, or a sentence of the pack.

The sentence begins with the name of an input, is one line, and ends in a full stop.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.property

STREAMS = ("image", "video", "audio", "text")
SHAPES = {"image": (4, 4, 4), "video": (4, 2, 4, 4), "audio": (8, 8, 8), "text": (24, 1, 1)}
VALUES = st.sampled_from([0.0, 0.5, 1.0, -3.0, 300.0, math.nan, math.inf])
SMALL = st.integers(0, 3)


def filled(shape, value):
    """A tensor of a shape: a ramp in 0..1, in which one number is `value`."""
    tensor = torch.linspace(0, 1, max(math.prod(shape), 1))[: math.prod(shape)].reshape(shape)
    if tensor.numel():
        tensor.view(-1)[-1] = value
    return tensor


TENSORS = st.builds(filled, st.lists(st.sampled_from([0, 1, 2, 3, 64]), max_size=4).map(tuple), VALUES)
IMAGES = st.builds(
    lambda b, h, w, c, v: filled((b, h, w, c), v), SMALL, st.integers(0, 40), SMALL, st.integers(1, 4), VALUES
)
AUDIO = st.builds(
    lambda b, c, n, rate, v: {"waveform": filled((b, c, n), v), "sample_rate": rate},
    *(SMALL, SMALL, st.sampled_from([0, 1, 100, 4000]), st.sampled_from([-1, 0, 1, 8000, 44100, 10**6]), VALUES),
)
CONDITIONINGS = st.lists(
    st.builds(
        lambda b, n, d, v: [filled((b, n, d), v), {}],
        *(st.integers(1, 3), st.integers(1, 2), st.sampled_from([64, 64, 64, 32]), VALUES),
    ),
    min_size=0,
    max_size=2,
)
WEIGHTS = st.dictionaries(st.sampled_from(["weight_1", "weight_2", "weight_3"]), VALUES, max_size=3)


@st.composite
def latents(draw, most=3):
    """A LATENT of one stream or several, of CoDi's shapes or others, with masks or without."""
    from comfy.nested_tensor import NestedTensor

    names = draw(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=most))
    batch = draw(st.integers(0, 3))
    streams = []
    for name in names:
        shape = SHAPES[name] if draw(st.integers(0, 5)) else draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
        streams.append(filled((batch if draw(st.integers(0, 5)) else 1, *shape), draw(VALUES)))
    latent = {"samples": NestedTensor(streams) if len(streams) > 1 else streams[0]}
    if draw(st.booleans()):
        latent["noise_mask"] = torch.ones(1, 1, *streams[0].shape[2:])
    return latent


def ends_well(host, name, **inputs):
    """Run a node; its outputs, or None after a sentence about one of its inputs."""
    node = host.node(name)
    schema = node.INPUT_TYPES()
    known = {key for group in ("required", "optional") for key in schema.get(group, {})}
    known |= {f"{kind}_{i}" for kind in ("prompt", "weight", "latent") for i in range(1, 17)} | {
        "weights",
        "prompts",
        "latents",
    }
    try:
        with torch.inference_mode():
            return node.execute(**inputs).args
    except ValueError as error:
        text = str(error)
        named, _, advice = text.partition(": ")
        assert set(named.split(", ")) <= known, f"{name} has no input {named!r}: {text}"
        assert advice.endswith(".") and "\n" not in text, text
        return None


def finite(conditioning):
    return all(torch.isfinite(embedding).all() for embedding, _ in conditioning)


@given(text=st.text(max_size=60))
def test_texts(host, tiny, text):
    positive, _ = ends_well(host, "CoDiPromptText", prompt_encoders=tiny[1], text=text)
    assert positive[0][0].shape == (1, 1, 64) and finite(positive)


@given(text=st.text(max_size=60))
def test_texts_to_latents(host, tiny, text):
    (latent,) = ends_well(host, "CoDiEncodeText", text=[text, "red"], text_vae=[tiny[4]])
    assert latent["samples"].shape == (2, 24, 1, 1) and torch.isfinite(latent["samples"]).all()


@given(image=IMAGES)
def test_images(host, tiny, image):
    usable = image.numel() and image.shape[-1] in (1, 3, 4) and image.isfinite().all()
    if (out := ends_well(host, "CoDiPromptImage", prompt_encoders=tiny[1], image=image)) is not None:
        assert usable and out[0][0][0].shape == (len(image), 1, 64) and finite(out[0])
    if (out := ends_well(host, "CoDiPromptVideo", prompt_encoders=tiny[1], video=image)) is not None:
        assert usable and out[0][0][0].shape == (1, 1, 64) and finite(out[0])


@given(audio=AUDIO)
def test_audio(host, tiny, audio):
    if (out := ends_well(host, "CoDiPromptAudio", prompt_encoders=tiny[1], audio=audio)) is not None:
        assert out[0][0][0].shape == (len(audio["waveform"]), 1, 64) and finite(out[0])


@given(first=CONDITIONINGS, second=CONDITIONINGS, weights=WEIGHTS, method=st.sampled_from(["linear", "spherical"]))
def test_mixtures(host, first, second, weights, method):
    prompts = {"prompt_1": first, "prompt_2": second}
    out = ends_well(host, "CoDiInterpolate", prompts=prompts, weights=weights, method=method)
    if out is None:
        return
    (a, _), (b, _), mixed = first[0], second[0], out[0][0][0]
    assert mixed.shape == torch.broadcast_shapes(a.shape, b.shape)
    wa, wb = weights.get("weight_1", 1.0), weights.get("weight_2", 1.0)
    if method == "linear":
        torch.testing.assert_close(mixed, (wa * a + wb * b) / (wa + wb), atol=1e-4, rtol=1e-4)


@given(
    mode=st.sampled_from(["paper", "released", "none"]),
    strength=st.floats(0, 4),
    scale=st.floats(0, 10),
    target=st.sampled_from(STREAMS),
    source=st.sampled_from(STREAMS),
)
def test_alignment(host, tiny, mode, strength, scale, target, source):
    key = host.module("nodes.runtime.alignment_options").KEY
    inputs = {"mode": mode, "strength": strength, "alignment_scale": scale}
    (model,) = ends_well(host, "CoDiAlignment", model=tiny[0], **inputs)
    inputs = {"listener": target, "speaker": source, "strength": strength}
    (model,) = ends_well(host, "CoDiAlignmentPair", model=model, **inputs)
    options = model.model_options["transformer_options"][key]
    assert (options["alignment"], options["strength"], options["alignment_scale"]) == (mode, strength, scale)
    assert options["pairs"] == {(target, source): strength}


@given(latent=latents(), held=st.fixed_dictionaries(dict.fromkeys(STREAMS, st.booleans())))
def test_held_streams(host, tiny, latent, held):
    streams = host.module("nodes.runtime.latent_packing")
    if (out := ends_well(host, "CoDiHoldStreams", model=tiny[0], samples=latent, **held)) is None:
        return
    kept = streams.split(out[0]["samples"])
    for one, before in zip(kept, streams.split(latent["samples"]), strict=True):  # NaN is refused by the sampler
        torch.testing.assert_close(one, before, atol=0, rtol=0, equal_nan=True)
    names = streams.names_of([z.shape for z in kept], streams_config(tiny))
    for name, mask in zip(names, streams.split_masks(out[0])):
        assert float(mask.max() if mask is not None and mask.numel() else 1) == (
            0 if held[name] and mask.numel() else 1
        )


@given(parts=st.lists(latents(most=2), min_size=1, max_size=3))
def test_joined_and_split(host, tiny, parts):
    streams = host.module("nodes.runtime.latent_packing")
    given_streams = [z for part in parts for z in streams.split(part["samples"])]
    joint = ends_well(host, "CoDiJoinLatents", latents={f"latent_{i}": part for i, part in enumerate(parts, 1)})
    if joint is None:
        return
    assert len(streams.split(joint[0]["samples"])) == len(given_streams)
    if (out := ends_well(host, "CoDiSplitLatent", model=tiny[0], samples=joint[0])) is None:
        return
    apart = [latent["samples"] for latent in out[: len(STREAMS)] if isinstance(latent, dict)]
    assert len(apart) == len(given_streams)
    assert all(any(torch.equal(one, other) for other in given_streams) for one in apart)


@given(latent=latents())
def test_the_best(host, tiny, latent):
    streams = host.module("nodes.runtime.latent_packing")
    if (out := ends_well(host, "CoDiPickBest", model=tiny[0], samples=latent)) is None:
        return
    for one, all_ in zip(streams.split(out[0]["samples"]), streams.split(latent["samples"]), strict=True):
        assert len(one) == 1 and any(torch.equal(one[0], row) for row in all_)


@given(tensor=st.one_of(TENSORS, st.text(max_size=5), st.integers(), st.lists(VALUES, max_size=3)), unit=st.booleans())
def test_embeddings(host, tensor, unit):
    if (out := ends_well(host, "CoDiEmbeddingFromTensor", tensor=tensor, normalize=unit)) is None:
        return
    embedding = out[0][0][0]
    assert embedding.ndim == 3 and finite(out[0])
    if unit:
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(embedding.shape[:2]), atol=1e-4, rtol=1e-4)


@given(prefix=st.text(max_size=20), conditioning=CONDITIONINGS)
def test_embeddings_as_files(host, prefix, conditioning):
    before = {path for path in host.output.parent.rglob("*.safetensors")}
    saved = ends_well(host, "CoDiSaveEmbedding", conditioning=conditioning, filename_prefix=prefix)
    made = {path for path in host.output.parent.rglob("*.safetensors")} - before
    for path in made:
        assert host.output in path.parents
        path.unlink()
    assert len(made) == (saved is not None)


@given(
    chosen=st.fixed_dictionaries(dict.fromkeys(STREAMS, st.booleans())),
    width=st.integers(0, 8).map(lambda n: 8 * n),
    height=st.integers(0, 8).map(lambda n: 8 * n),
    frames=st.integers(0, 40),
    seconds=st.floats(0, 3),
    batch_size=st.integers(1, 4),
)
def test_empty_latents(host, tiny, chosen, **sizes):
    streams = host.module("nodes.runtime.latent_packing")
    if (out := ends_well(host, "CoDiEmptyLatent", model=tiny[0], **chosen, **sizes)) is None:
        return
    found = streams.split(out[0]["samples"])
    assert streams.names_of([z.shape for z in found], streams_config(tiny)) == [n for n in STREAMS if chosen[n]]
    assert all(len(z) == sizes["batch_size"] and z.isfinite().all() for z in found)


def streams_config(tiny):
    return tiny[0].model.codi_config
