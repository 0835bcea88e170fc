"""Versatile Diffusion: contexts of all tokens as CONDITIONING, mixtures of them, and what samplers make of them."""

import pytest
import torch

IMAGE, TEXT = torch.zeros(2, 4, 8, 8), torch.zeros(2, 24, 1, 1)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def whole(host):
    """The tiny model as the backend loads it."""
    return host.module("codi_backend.pipeline").CoDi.load(host.models / "tiny_versatile.safetensors")


@pytest.fixture
def context(run_node, versatile):
    """Positive and unconditional CONDITIONING of a text, or of an image."""

    def call(content, **options):
        if isinstance(content, str):
            return run_node("CoDiContextText", prompt_encoders=[versatile[1]], text=[content])
        given = {"weight": 1.0, "focus": 0.5, "unconditional": "auto"} | options
        return run_node("CoDiContextImage", prompt_encoders=versatile[1], image=content, **given)

    return call


@pytest.fixture(params=["CoDiMixContextsByWeight", "CoDiMixContexts"])
def mix(request, run_node):
    """The node with weights as widgets, and the one with sockets that saved graphs have."""

    def call(*contexts, weights=(), method="attention"):
        names = ("context", "unconditional", "weight")
        given = [
            {f"{name}_{i}": one for i, one in enumerate(values, start=1)}
            for name, values in zip(names, [*zip(*contexts), weights])
        ]
        inputs = dict(zip(("contexts", "unconditionals", "weights"), given))
        if request.param == "CoDiMixContextsByWeight":
            inputs = {"contexts": {"contexts": str(len(contexts))} | given[0] | given[1] | given[2]}
        return run_node(request.param, **inputs, method=method)

    return call


@pytest.fixture
def denoise(sample, versatile):
    """The stock KSampler on the tiny Versatile Diffusion; one stream."""

    def call(conditioning, samples=IMAGE, **settings):
        (result,) = sample({"samples": samples}, versatile[0], conditioning=conditioning, **settings)
        return result

    return call


def test_sockets(versatile, host):
    model, encoders, vae, audio_vae, text_vae = versatile
    assert isinstance(model.model, host.module("nodes.runtime.model").Model)
    assert encoders.text and encoders.image and vae and text_vae
    assert encoders.audio is None and audio_vae is None


def test_texts_are_contexts_of_the_backend(run_node, versatile, whole):
    texts = ["a red star", "two blue stars, slowly"]
    positive, negative = run_node("CoDiContextText", prompt_encoders=[versatile[1]], text=texts)
    expected = whole.context("text", texts)
    torch.testing.assert_close(positive[0][0], expected.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(negative[0][0], expected.unconditional[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unconditional", ["auto", "zeros", "black", "grey"])
@pytest.mark.parametrize("mask", [None, (3, 20, 50), (1, 5, 7)])
def test_images_are_contexts_of_the_backend(host, context, whole, unconditional, mask):
    image, options = noise(3, 40, 30, 3), {"weight": 0.7, "focus": 0.2, "unconditional": unconditional}
    mask = None if mask is None else noise(*mask)
    positive, negative = context(image, mask=mask, **options)
    options["unconditional"] = None if unconditional == "auto" else unconditional
    expected = whole.context("image", image.movedim(-1, 1), mask=None if mask is None else mask[:, None], **options)
    torch.testing.assert_close(positive[0][0], expected.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(negative[0][0], expected.unconditional[:1], atol=1e-5, rtol=1e-5)
    for_text = negative[0][1].get(host.module("nodes.runtime.context_tokens").FOR_TEXT)
    assert (for_text is None) == (unconditional != "auto")
    if for_text is not None:
        torch.testing.assert_close(for_text, expected.without("text")[:1], atol=1e-5, rtol=1e-5)


@pytest.fixture
def recorded(versatile):
    """A MODEL that keeps what its network is given and gives."""
    from comfy.patcher_extension import WrappersMP

    calls = []

    def record(executor, x, timesteps, context, control, options, **named):
        result = executor(x, timesteps, context, control, options, **named)
        calls.append((x, timesteps, result))
        return result

    model = versatile[0].clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
    return model, calls


@pytest.mark.parametrize("name", ["image", "text"])
def test_the_network_gives_what_the_backend_gives(context, mix, sample, recorded, whole, name):
    model, calls = recorded
    image, latent = noise(1, 40, 40, 3), {"image": IMAGE, "text": TEXT}[name]
    mixture = mix(context("a red star"), context(image), weights=(3.0, 1.0))
    sample({"samples": latent}, model, steps=1, conditioning=mixture)
    (x, timesteps, given) = calls[0]
    assert len(calls) == 1 and len(x) == 2 * len(latent)  # of equal shapes, both prompts are one batch
    backend = mixed(whole, image).expand(2)
    x, given = (t.flatten(1) if name == "text" else t for t in (x, given))
    tokens = zip(backend.given(name, 2), backend.given(name, 0))
    # ComfyUI puts the negative prompt first.
    batched = [
        (kind, torch.cat([unconditional, known]), ratio) for (kind, known, ratio), (_, unconditional, _) in tokens
    ]
    expected = whole.diffuser({name: x}, timesteps, batched)[name]
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)


def mixed(whole, image):
    import importlib

    contexts = importlib.import_module(type(whole).__module__.replace(".pipeline", ".conditioning.context"))
    text = whole.context("text", ["a red star"])
    return contexts.mix([(text, 3.0), (whole.context("image", image.movedim(-1, 1)), 1.0)])


def test_all_flows(context, denoise):
    """And of each the batch, the seed, and the unconditional context."""
    for content in ("two red stars", noise(1, 32, 32, 3)):
        for latent in (IMAGE, TEXT):
            one, again, other = (denoise(context(content), latent, seed=seed, steps=2) for seed in (0, 0, 1))
            assert one.shape == latent.shape and one.isfinite().all() and one.std() > 0.01
            assert torch.equal(one, again) and not torch.equal(one, other)


def test_nothing_is_black_for_texts_and_zeros_for_images(context, denoise):
    image = noise(1, 32, 32, 3)

    def made(latent, unconditional):
        return denoise(context(image, unconditional=unconditional), latent, steps=2)

    assert torch.equal(made(IMAGE, "auto"), made(IMAGE, "zeros"))
    assert torch.equal(made(TEXT, "auto"), made(TEXT, "black"))
    for latent in (IMAGE, TEXT):
        assert not torch.allclose(made(latent, "zeros"), made(latent, "black"), atol=1e-4)


def test_a_share_of_nothing_is_as_if_it_were_not_there(context, denoise, mix):
    text, image = context("a red star"), context(noise(1, 32, 32, 3))
    alone = denoise(text, steps=2)
    torch.testing.assert_close(denoise(mix(text, image, weights=(2.0, 0.0)), steps=2), alone, atol=1e-5, rtol=1e-5)
    both = denoise(mix(text, image), steps=2)
    assert not torch.allclose(both, alone, atol=1e-3)
    torch.testing.assert_close(denoise(mix(image, text), steps=2), both, atol=1e-4, rtol=1e-4)


def test_by_layer_draws_by_the_seed(context, denoise, mix):
    text, image = context("a red star"), context(noise(1, 32, 32, 3))
    mixture = mix(text, image, method="layer")
    first, again = (denoise(mixture, steps=3) for _ in range(2))
    assert torch.equal(first, again) and first.isfinite().all()
    assert not torch.allclose(first, denoise(mix(text, image), steps=3), atol=1e-3)
    certain = mix(text, image, weights=(1.0, 0.0), method="layer")
    torch.testing.assert_close(denoise(certain, steps=3), denoise(text, steps=3), atol=1e-5, rtol=1e-5)


def test_side_by_side_is_what_the_stock_node_makes(host, context, denoise, mix):
    one, other = (context(noise(1, 32, 32, 3, seed=seed), weight=weight) for seed, weight in ((0, 1.0), (1, 0.5)))
    ours = mix(one, other, method="concatenate")
    concat = host.node("ConditioningConcat")().concat
    stock = [concat(a, b)[0] for a, b in zip(one, other)]
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(ours, stock))
    assert torch.equal(denoise(ours, steps=2), denoise(stock, steps=2))
    text = context("a red star")
    with pytest.raises(ValueError, match="^negative: another node has changed the number of tokens"):
        denoise(stock, TEXT)  # whose unconditional tokens are others
    appended = concat(mix(text, one)[0], other[0])[0], concat(mix(text, one)[1], other[1])[0]
    torch.testing.assert_close(denoise(appended, steps=2), denoise(mix(text, ours), steps=2))


def test_stock_nodes_zero_and_combine(host, context, denoise):
    positive, negative = context(noise(1, 32, 32, 3))
    (zeros,) = host.node("ConditioningZeroOut")().zero_out(positive)
    assert torch.equal(denoise((positive, zeros), steps=2), denoise((positive, negative), steps=2))
    (combined,) = host.node("ConditioningCombine")().combine(positive, positive)
    # Other batches are rounded otherwise, how far depends on the processor, and guidance makes it more.
    again, once = denoise((combined, negative), steps=2), denoise((positive, negative), steps=2)
    torch.testing.assert_close(again, once, atol=5e-4, rtol=1e-3)


def test_prompts_of_other_lengths_and_kinds(context, denoise, mix):
    """Which cannot be one batch."""
    image, text = context(noise(1, 32, 32, 3)), context("a red star")
    two = mix(image, image, method="concatenate")
    assert not torch.allclose(denoise((two[0], image[1])), denoise((image[0], text[1])), atol=1e-3)
    # Twice the same tokens are the same to attention, whatever the unconditional tokens are.
    torch.testing.assert_close(denoise((two[0], image[1])), denoise(image), atol=5e-4, rtol=1e-3)


@pytest.fixture
def guided(host, run_node, versatile):
    """SamplerCustomAdvanced with our guider, or with the stock one."""

    def call(conditioning, cfg=3.0, cfgs=None, stock=False, latent=IMAGE):
        import comfy.samplers

        positive, negative = conditioning
        if stock:
            guider = comfy.samplers.CFGGuider(versatile[0])
            guider.set_conds(positive, negative)
            guider.set_cfg(cfg)
        else:
            given = {f"cfg_{i}": scale for i, scale in (cfgs or {}).items()}
            inputs = {"model": versatile[0], "positive": positive, "negative": negative, "cfg": cfg, "cfgs": given}
            (guider,) = run_node("CoDiContextGuider", **inputs)
        sigmas = run_node("BasicScheduler", model=versatile[0], scheduler="normal", steps=2, denoise=1.0)[0]
        (euler,) = run_node("KSamplerSelect", sampler_name="euler")
        (random,) = run_node("RandomNoise", noise_seed=0)
        inputs = {"noise": random, "guider": guider, "sampler": euler, "sigmas": sigmas}
        return run_node("SamplerCustomAdvanced", **inputs, latent_image={"samples": latent})[0]["samples"]

    return call


def test_guidance_for_each_context(context, mix, guided):
    text, image = context("a red star"), context(noise(1, 32, 32, 3))
    mixture = mix(text, image)
    stock = guided(mixture, stock=True)
    assert torch.equal(guided(mixture), stock) and torch.equal(guided(mixture, 1.0, {1: 3.0, 2: 3.0}), stock)
    assert torch.equal(guided(mixture, 1.0), guided(mixture, 1.0, stock=True))
    apart = guided(mixture, 3.0, {1: 0.0})
    assert apart.isfinite().all() and not torch.allclose(apart, stock, atol=1e-3)


@pytest.mark.parametrize("latent", [IMAGE, TEXT])
def test_without_guidance_by_one_context_it_is_led_away_from_the_other(host, context, mix, guided, latent):
    mixture = mix(context("a red star"), context(noise(1, 32, 32, 3)))
    (tokens, options), (away, others) = mixture[0][0], mixture[1][0]
    if latent is TEXT:
        away = others[host.module("nodes.runtime.context_tokens").FOR_TEXT]
    known = [[torch.cat([tokens[:, :77], away[:, 77:]], 1), options]]
    expected = guided((mixture[0], known), stock=True, latent=latent)
    torch.testing.assert_close(guided(mixture, 3.0, {1: 1.0}, latent=latent), expected)


def test_two_streams_at_once_are_two_runs(host, versatile, sample, context, denoise):
    conditioning = context("a red star")
    latent = {"samples": host.module("nodes.runtime.latent_packing").join([IMAGE, TEXT])}
    image, text = sample(latent, versatile[0], conditioning=conditioning, steps=2)
    torch.testing.assert_close(image, denoise(conditioning, steps=2), atol=1e-3, rtol=1e-3)
    assert text.shape == TEXT.shape and text.isfinite().all()


def test_fidelity_is_denoise(host, versatile, context, run_node):
    positive, negative = context(noise(1, 64, 64, 3))
    latent = {"samples": versatile[2].encode(noise(1, 64, 64, 3))}
    made = {}
    for denoise in (0.1, 0.9):
        settings = (10, 1.0, "euler", "normal", positive, negative, latent)
        (result,) = host.node("KSampler")().sample(versatile[0], 0, *settings, denoise=denoise)
        made[denoise] = (result["samples"] - latent["samples"]).abs().mean()
    assert 0 < made[0.1] < made[0.9] / 2


def test_components_of_an_image(host, context, run_node, denoise):
    low_rank = host.module("codi_backend.conditioning.editing").low_rank

    def left(conditioning, components, whole=False):
        inputs = {"conditioning": conditioning, "components": components, "whole": whole}
        return run_node("CoDiContextComponents", **inputs)[0]

    for conditioning in context(noise(2, 32, 32, 3), unconditional="black"):
        tokens = conditioning[0][0]
        torch.testing.assert_close(left(conditioning, "the 10 strongest")[0][0], low_rank(tokens[:, 1:], 1))
        assert torch.equal(left(conditioning, "all", whole=True)[0][0], tokens)
    both = [left(one, "the 2 strongest") for one in context(noise(1, 32, 32, 3))]
    assert denoise(both, TEXT, steps=2).isfinite().all()  # with unconditional tokens of another image


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        ("CoDiContextText", {"prompt_encoders": [None], "text": ["a star"]}, "^prompt_encoders: nothing is connected"),
        (
            "CoDiContextImage",
            {"unconditional": "red"},
            "^unconditional: there is no 'red'; choose from auto, zeros, bl",
        ),
        ("CoDiMixContexts", {"contexts": {}, "unconditionals": {}, "method": "layer"}, "^contexts: there is nothing"),
        ("CoDiMixContexts", {"method": "sum"}, "^method: there is no 'sum'; choose from attention, layer, concatenate"),
        ("CoDiContextComponents", {"components": "some"}, "^components: there is no 'some'; choose from all"),
        (
            "CoDiEditTextLatent",
            {"samples": {"samples": TEXT}, "text_vae": None, "negative": "", "positive": ""},
            "^text_vae: the loaded checkpoint has no text autoencoder",
        ),
    ],
)
def test_inputs_that_the_editor_would_not_let_through(run_node, versatile, context, node, inputs, message):
    text = context("a star")
    usual = {
        "CoDiContextImage": {"prompt_encoders": versatile[1], "image": noise(1, 8, 8, 3), "weight": 1.0, "focus": 0.5},
        "CoDiMixContexts": {"contexts": {"context_1": text[0]}, "unconditionals": {"unconditional_1": text[1]}},
        "CoDiContextComponents": {"conditioning": text[0], "whole": True},
    }
    with pytest.raises(ValueError, match=message):
        run_node(node, **usual.get(node, {}) | inputs)


def test_an_edited_text_latent(host, run_node, versatile):
    text_vae = versatile[4]
    edit = host.module("codi_backend.conditioning.editing").edit_text_latent
    texts = [text_vae.encode([text]).flatten(1) for text in ("red star", "blue star")]
    latent = noise(2, 24, 1, 1)

    def edited(negative, positive, samples=latent):
        inputs = {"samples": {"samples": samples}, "text_vae": text_vae, "negative": negative, "positive": positive}
        return run_node("CoDiEditTextLatent", **inputs)[0]["samples"]

    expected = edit(latent.flatten(1), *texts)[:, :, None, None]
    torch.testing.assert_close(edited("red star", "blue star"), expected)
    assert torch.equal(edited("", " "), latent)
    join = host.module("nodes.runtime.latent_packing").join
    image, text = edited("red star", "blue star", join([IMAGE, latent])).unbind()
    torch.testing.assert_close(text, expected)
    assert torch.equal(image, IMAGE)


def test_lora_changes_the_shared_transformers(host, versatile, context, sample, denoise):
    import comfy.sd

    module = "diffusion_model.diffuser.context_sets.text.0.transformer_blocks.0.attn2.to_v"
    weight = versatile[0].model.get_submodule(module).weight
    lora = {f"{module}.lora_A.weight": noise(2, weight.shape[1]), f"{module}.lora_B.weight": noise(weight.shape[0], 2)}
    model, _ = comfy.sd.load_lora_for_models(versatile[0], None, lora, 1.0, 0.0)
    text, image = context("a red star"), context(noise(1, 32, 32, 3))

    def changes(conditioning):
        (with_lora,) = sample({"samples": IMAGE}, model, conditioning=conditioning, steps=2)
        return not torch.allclose(with_lora, denoise(conditioning, steps=2), atol=1e-3)

    assert changes(text) and not changes(image)
