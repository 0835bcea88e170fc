"""Focus and blending of encoded images, on ComfyUI's own encoders and the nodes that read them."""

import copy

import pytest
import torch

# ComfyUI's schedule of noise augmentation, which is made anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:To copy construct from a tensor")

PATCHES = 36


def make_images(count=1, seed=0, size=84):
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoders(host):
    """Tiny encoders with random weights: CLIP with one token for the image and LLaVA's projection, SigLIP with none."""
    import comfy.clip_vision

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
    shape |= {"image_size": 84, "patch_size": 14, "num_channels": 3, "hidden_act": "quick_gelu"}
    kinds = {
        "clip": {"model_type": "clip_vision_model", "projection_dim": 24, "projector_type": "llava3"},
        "siglip": {"model_type": "siglip_vision_model"},
    }
    made = {}
    for name, kind in kinds.items():
        made[name] = comfy.clip_vision.ClipVisionModel(shape | kind)
        fill(made[name].model)
    return made


def fill(module):
    """Random weights; ComfyUI's layers leave them as the memory was."""
    noise = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        weight.data.normal_(0, 0.2, generator=noise)


@pytest.fixture
def encode(host, encoders):
    """The stock CLIP Vision Encode."""

    def call(images, encoder="clip"):
        with torch.inference_mode():
            return host.node("CLIPVisionEncode")().encode(encoders[encoder], images, "none")[0]

    return call


@pytest.fixture
def focus(run_node):
    return lambda output, level: run_node("CoDiFocus", clip_vision_output=output, focus=level)[0]


@pytest.fixture
def blend(run_node):
    def call(*outputs, weights=(), masks=(), method="concatenate"):
        named = {}
        for group, kind, values in (
            ("clip_vision_outputs", "image", outputs),
            ("weights", "weight", weights),
            ("masks", "mask", masks),
        ):
            named[group] = {f"{kind}_{i}": value for i, value in enumerate(values, start=1)}
        return run_node("CoDiBlendVisionOutputs", method=method, **named)[0]

    return call


def tensors(output):
    return {name: value for name, value in vars(output).items() if torch.is_tensor(value)}


@pytest.mark.parametrize("encoder", ["clip", "siglip"])
@pytest.mark.parametrize("level", [0.0, 0.8])
def test_focus_changes_local_tokens_and_nothing_else(host, encode, focus, encoder, level):
    edit = host.module("codi_backend.conditioning.focus").focus
    given = encode(make_images(2), encoder)
    before = copy.deepcopy(tensors(given))
    changed = tensors(focus(given, level))
    assert changed.keys() == before.keys()
    for name, tokens in before.items():
        assert torch.equal(getattr(given, name), tokens), "the input was changed"
        if name == "image_embeds" and encoder == "clip":
            assert torch.equal(changed[name], tokens)
            continue
        whole = tokens.shape[-2] - PATCHES
        assert whole == (1 if encoder == "clip" and name != "mm_projected" else 0)
        assert torch.equal(changed[name][..., :whole, :], tokens[..., :whole, :])
        local = tokens[..., whole:, :].flatten(0, -3)
        expected = edit(local, level).view_as(tokens[..., whole:, :])
        torch.testing.assert_close(changed[name][..., whole:, :], expected)
        assert not torch.allclose(expected, tokens[..., whole:, :], atol=0.01)
    assert focus(given, 0.5) is given


def test_focus_reaches_redux_and_leaves_unclip(host, encode, focus):
    import comfy.sd
    from comfy.ldm.flux.redux import ReduxImageEncoder

    redux = ReduxImageEncoder(redux_dim=32, txt_in_features=16)
    fill(redux)
    style = comfy.sd.StyleModel(redux)
    given = encode(make_images())
    prompt = [[torch.zeros(1, 5, 16), {}]]

    def styled(output):
        with torch.inference_mode():
            ((tokens, _),) = host.node("StyleModelApply")().apply_stylemodel(prompt, style, output, 1.0, "multiply")[0]
        return tokens[:, 5:]

    plain, changed = styled(given), styled(focus(given, 0.0))
    assert plain.shape == changed.shape == (1, PATCHES + 1, 16)
    assert torch.equal(plain[:, 0], changed[:, 0]) and not torch.allclose(plain[:, 1:], changed[:, 1:], atol=1e-3)
    assert torch.equal(unclip(host, given), unclip(host, focus(given, 0.0)))


def unclip(host, *outputs):
    """What SD 2.1 unCLIP gets, without noise."""
    from comfy.ldm.modules.encoders.noise_aug_modules import CLIPEmbeddingNoiseAugmentation
    from comfy.model_base import unclip_adm

    conditioning = [[torch.zeros(1, 5, 16), {}]]
    for output in outputs:
        (conditioning,) = host.node("unCLIPConditioning")().apply_adm(conditioning, output, 1.0, 0.0)
    schedule = {"timesteps": 10, "beta_schedule": "linear"}
    augment = CLIPEmbeddingNoiseAugmentation(noise_schedule_config=schedule, timestep_dim=24)
    return unclip_adm(conditioning[0][1]["unclip_conditioning"], "cpu", augment, seed=0)


def test_concatenation(host, encode, blend):
    a, b = encode(make_images(seed=1)), encode(make_images(seed=2))
    out = blend(a, b, weights=(0.5,))
    for name in ("last_hidden_state", "penultimate_hidden_states", "mm_projected"):
        torch.testing.assert_close(out[name], torch.cat([0.5 * a[name], b[name]], 1))
    torch.testing.assert_close(out.image_embeds, (a.image_embeds + 2 * b.image_embeds) / 3)
    assert unclip(host, out).shape == unclip(host, a).shape
    for encoder in ("clip", "siglip"):
        alone = encode(make_images(), encoder)
        assert all(torch.equal(tensors(blend(alone))[name], tokens) for name, tokens in tensors(alone).items())


@pytest.mark.parametrize("method", ["concatenate", "average"])
def test_siglip_has_all_its_hidden_states(encode, blend, method):
    a, b = encode(make_images(seed=1), "siglip"), encode(make_images(seed=2), "siglip")
    out = blend(a, b, method=method)
    assert tensors(out).keys() == tensors(a).keys()
    for name in tensors(a):
        expected = torch.cat([a[name], b[name]], -2) if method == "concatenate" else (a[name] + b[name]) / 2
        torch.testing.assert_close(out[name], expected)
    assert hasattr(out, "image_sizes") == (method == "average")


@pytest.mark.parametrize("method", ["concatenate", "average"])
def test_an_image_of_weight_or_mask_zero_is_not_there(encode, blend, method):
    a, b = encode(make_images(seed=1)), encode(make_images(seed=2))
    for out in (
        blend(a, b, weights=(0.0, 1.0), method=method),
        blend(a, b, masks=(torch.zeros(1, 50, 70),), method=method),
    ):
        for name, tokens in tensors(b).items():
            torch.testing.assert_close(out[name], tokens)


def left_half():
    mask = torch.zeros(1, 12, 12)
    mask[..., :6] = 1
    return mask


def test_masked_out_tokens_are_dropped_or_come_from_the_other_image(encode, blend):
    a, b = encode(make_images(seed=1)), encode(make_images(seed=2))
    left = left_half()[0, ::2, ::2].flatten().bool()
    first, second = (one.last_hidden_state for one in (a, b))
    out = blend(a, b, masks=(left_half(),)).last_hidden_state
    expected = [first[:, :1] / 2, first[:, 1:][:, left], second]
    torch.testing.assert_close(out, torch.cat(expected, 1))
    collage = blend(a, b, masks=(left_half(), 1 - left_half()), method="average")
    places = torch.where(left[:, None], first[:, 1:], second[:, 1:])
    torch.testing.assert_close(collage.last_hidden_state[:, 1:], places)
    torch.testing.assert_close(collage.last_hidden_state[:, 0], (first + second)[:, 0] / 2)
    torch.testing.assert_close(collage.image_embeds, (a.image_embeds + b.image_embeds) / 2)


def test_a_place_that_no_image_fills_is_zero(encode, blend):
    out = blend(encode(make_images()), masks=(left_half(),), method="average").last_hidden_state
    assert out.isfinite().all()
    assert not out[:, 1:].unflatten(1, (6, 6))[:, :, 3:].any() and out[:, 1:].unflatten(1, (6, 6))[:, :, :3].all()


@pytest.mark.parametrize("method", ["concatenate", "average"])
def test_batches(encode, blend, method):
    many, one = encode(make_images(3, seed=1)), encode(make_images(seed=2))
    masks = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    out = blend(many, one, masks=(None, masks), method=method)
    for i in range(3):
        single = blend(encode(make_images(3, seed=1)[i : i + 1]), one, masks=(None, masks[i : i + 1]), method=method)
        for name, tokens in tensors(single).items():
            torch.testing.assert_close(out[name][i : i + 1], tokens, atol=1e-5, rtol=1e-5)


def test_images_that_are_not_square_keep_their_grid(host, blend, focus):
    import comfy.clip_vision

    wide = comfy.clip_vision.Output()
    wide.last_hidden_state = torch.randn(1, 6 * 10, 32, generator=torch.Generator().manual_seed(0))
    wide.image_sizes = [(3, 96, 160)]
    mask = torch.zeros(1, 6, 10)
    mask[:, 2, 7] = 1
    out = blend(wide, masks=(mask,)).last_hidden_state
    assert torch.equal(out[:, 0], wide.last_hidden_state[:, 27])
    assert focus(wide, 0.2).last_hidden_state.shape == (1, 60, 32)


def test_registers_are_not_local(focus, host):
    import comfy.clip_vision

    dino = comfy.clip_vision.Output()
    dino.last_hidden_state = torch.randn(1, 5 + 36, 32, generator=torch.Generator().manual_seed(0))
    changed = focus(dino, 0.2).last_hidden_state
    same = (changed == dino.last_hidden_state).all(-1)[0]
    assert same[:5].all() and not same[5:].any()


def test_in_a_graph(host, encoders):
    from host.graph import Give, Graph, Kept, register

    register(host._nodes.NODE_CLASS_MAPPINGS)
    graph = Graph()
    Give.values |= {
        "encoder": encoders["clip"],
        "a": make_images(seed=1),
        "b": make_images(seed=2),
        "mask": left_half(),
    }
    encoder = graph.add("TestGive", name="encoder")
    images = [
        graph.add("CLIPVisionEncode", clip_vision=encoder, image=graph.add("TestGive", name=name), crop="none")
        for name in "ab"
    ]
    mask = graph.add("TestGive", name="mask")
    focused = graph.add("CoDiFocus", clip_vision_output=images[0], focus=0.2)
    sockets = {"clip_vision_outputs.image_1": focused, "clip_vision_outputs.image_2": images[1]}
    blended = graph.add("CoDiBlendVisionOutputs", **sockets, **{"masks.mask_2": mask}, method="concatenate")
    graph.keep("blended", blended)
    host.run(graph.prompt)
    (out,) = Kept.values["blended"]
    assert out.last_hidden_state.shape == (1, 37 + 1 + 18, 32)
    Give.values.clear()
    Kept.values.clear()


def test_bad_input_of_focus(host, encode, focus):
    import comfy.clip_vision

    empty, few, broken = comfy.clip_vision.Output(), comfy.clip_vision.Output(), encode(make_images())
    few.last_hidden_state = torch.zeros(1, 17, 32)
    broken.last_hidden_state = broken.last_hidden_state / 0
    for output, level, sentence in (
        (empty, 0.2, "^clip_vision_output: there are no tokens in this; connect the output of CLIP Vision Encode"),
        (None, 0.2, "^clip_vision_output: there are no tokens"),
        (few, 0.2, "^clip_vision_output: Focus needs at least 20 local tokens .* set it to 0.5"),
        (broken, 0.2, "^clip_vision_output: its last_hidden_state holds values that are not finite"),
        (encode(make_images()), 1.5, "^focus: 1.5 is out of range; choose a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            focus(output, level)
    assert focus(few, 0.5) is few


def test_bad_input_of_blending(host, encode, focus, blend):
    import comfy.clip_vision

    good, other = encode(make_images()), encode(make_images(), "siglip")
    large = comfy.clip_vision.Output()
    large.last_hidden_state = torch.zeros(1, 50, 32)
    small = comfy.clip_vision.Output()
    small.last_hidden_state = torch.zeros(1, 37, 32)
    pair, three = encode(make_images(2)), encode(make_images(3))
    mask = torch.ones(1, 8, 8)
    for outputs, settings, sentence in (
        ((), {}, "^clip_vision_outputs: there is nothing to blend; connect at least one"),
        ((good, good), {"method": "sum"}, "^method: there is no 'sum'; choose from concatenate, average"),
        ((good, None), {"masks": (None, mask)}, "^masks: one is for image_2, which is not connected; connect it"),
        ((good, good), {"weights": (1, 1, 1)}, "^weights: one is for image_3, which is not connected"),
        ((good, good), {"weights": (0, 0)}, "^weights: all are 0"),
        ((good, good), {"weights": (-1, 1)}, "^weights: -1 is out of range"),
        ((good, other), {}, "^image_2: this is from another model than image_1; encode all"),
        ((small, large), {"method": "average"}, "^method: average needs images with the same number of tokens; choose"),
        ((pair, three), {}, r"^clip_vision_outputs: batches of images and masks differ \(2, 3\); make them equal"),
        ((pair, good), {"masks": (torch.ones(3, 8, 8),)}, "^clip_vision_outputs: batches"),
        ((good, good), {"masks": (0 * mask, 0 * mask)}, "^masks: the masks and weights remove all images; give one"),
        ((good, good), {"masks": (mask / 0 * 0,)}, "^mask_1: this holds values that are not finite"),
        ((good, good), {"masks": (None, mask[None, None])}, r"^mask_2: this is of shape \[1, 1, 1, 8, 8\]; connect"),
        ((blend(good, good), good), {}, "^image_1: 74 tokens do not form one image; connect the output"),
        ((comfy.clip_vision.Output(), good), {}, "^image_1: there are no tokens in this"),
    ):
        with pytest.raises(ValueError, match=sentence):
            blend(*outputs, **settings)
    with pytest.raises(ValueError, match="^clip_vision_output: 74 tokens .* before CoDi Blend Vision Outputs"):
        focus(blend(good, good), 0.2)
