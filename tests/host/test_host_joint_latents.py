"""Nodes for nested latents of any models, around LTX-2's and MiniMax H3's model classes with random weights."""

import pytest
import torch
from host import core_models as core
from host.graph import Give, Graph, Kept, register


@pytest.fixture
def models():
    return {name: core.build(name) for name in ("ltxav", "h3")}


def latent_of(name: str, seed: int = 0) -> dict:
    return core.ltx_latent(seed) if name == "ltxav" else core.h3_latent(seed)


@pytest.fixture
def denoise(host):
    """Two steps of the stock KSampler."""

    def call(name, model, latent, **settings):
        defaults = {"seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
        with torch.inference_mode():
            return host.node("KSampler")().sample(
                model,
                **defaults | settings,
                positive=core.conditioning(name),
                negative=core.conditioning(name, 1),
                latent_image=latent,
            )[0]

    return call


def rows(latent: dict, name: str = "samples") -> list[torch.Tensor]:
    return latent[name].unbind()


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["ltxav", "h3"])
def test_what_the_nodes_make_can_be_sampled(run_node, models, denoise, name):
    """Join, slice, hold, mask, repeat and select; then the model's own sampling."""
    video, audio = rows(latent_of(name))
    (joint,) = run_node(
        "CoDiJoinLatents",
        latents={"latent_1": {"samples": video}, "latent_2": {"samples": audio, "type": "audio"}},
        names="film, music",
    )
    (part,) = run_node("CoDiSliceLatent", samples=joint, unit="share", start=0.0, length=0.5)
    assert all(z.shape[:2] == whole.shape[:2] for z, whole in zip(rows(part), (video, audio)))
    assert part["samples"].unbind()[0].shape[2] < video.shape[2]
    off = dict.fromkeys(("image", "video", "audio", "text"), False)
    (held,) = run_node("CoDiHoldStreams", samples=part, streams="film", **off)
    (held,) = run_node("CoDiSetStreamMask", samples=held, stream="music", start=0.5, end=1.0)
    (twice,) = run_node("CoDiRepeatLatentBatch", samples=held, amount=2)
    result = denoise(name, models[name], twice) if name == "ltxav" else denoise(name, models[name], held)
    kept, made = rows(part), rows(result)
    torch.testing.assert_close(made[0], kept[0].expand_as(made[0]))
    time = 2 if name == "ltxav" else 3
    half = made[1].shape[time] // 2
    before = kept[1].narrow(time, 0, half)
    torch.testing.assert_close(made[1].narrow(time, 0, half), before.expand(len(made[1]), -1, -1, -1))
    assert not torch.allclose(made[1].narrow(time, half + 1, 2), kept[1].narrow(time, half + 1, 2))
    if name == "ltxav":
        (second,) = run_node("CoDiLatentFromBatch", samples=result, batch_index=-1, length=5)
        assert equal(rows(second), [z[1:] for z in made]) and second["batch_index"] == [1]
    split = run_node("CoDiSplitLatent", samples=result)
    assert split[5]["type"] == "audio" and "type" not in split[4]


def test_streams_keep_their_own_keys_and_names(run_node):
    video = {"samples": torch.zeros(2, 128, 4, 2, 3), "downscale_ratio_temporal": 8, "batch_index": [3, 4]}
    audio = {"samples": torch.zeros(2, 8, 25, 16), "type": "audio", "sample_rate": 16000}
    (joint,) = run_node("CoDiJoinLatents", latents={"latent_1": video, "latent_2": audio})
    assert {"type", "sample_rate", "downscale_ratio_temporal"} <= joint.keys() and joint["batch_index"] == [3, 4]
    joint = joint | {"seed": 5}
    del joint["downscale_ratio_temporal"]  # as samplers do
    parts = run_node("CoDiSplitLatent", samples=joint)[4:6]
    assert [sorted(part.keys() - {"samples"}) for part in parts] == [
        ["batch_index", "seed"],
        ["batch_index", "sample_rate", "seed", "type"],
    ]
    (named,) = run_node("CoDiJoinLatents", latents={"latent_1": video, "latent_2": audio}, names="Film, music")
    third, second = run_node("CoDiSplitLatent", samples=named)[4:6]
    (again,) = run_node("CoDiJoinLatents", latents={"latent_1": second, "latent_2": third}, keep_order=True)
    (masked,) = run_node("CoDiSetStreamMask", samples=again, stream="film", start=0.0, end=0.5)
    assert [float(mask.mean()) for mask in rows(masked, "noise_mask")][0] == 1
    assert float(rows(masked, "noise_mask")[1].mean()) < 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a", "names: there are 1 for 2 streams"),
        ("a, 2", "names: '2' is no name"),
        ("a, A", "names: two streams have the same"),
        ("a, ", "names: '' is no name"),
    ],
)
def test_names_that_cannot_be(run_node, names, message):
    given = {f"latent_{i}": {"samples": z} for i, z in enumerate(rows(latent_of("ltxav")), start=1)}
    with pytest.raises(ValueError, match=f"^{message}"):
        run_node("CoDiJoinLatents", latents=given, names=names)


def test_what_the_stock_node_joined_is_split(host, run_node):
    """LTX-2's node merges all keys, so each stream has all of them."""
    joint = latent_of("ltxav") | {"type": "audio", "noise_mask": latent_of("ltxav", 1)["samples"]}
    video, audio = run_node("CoDiSplitLatent", samples=joint)[4:6]
    assert video["type"] == audio["type"] == "audio"
    assert torch.equal(audio["noise_mask"], rows(joint, "noise_mask")[1])


def test_batches_follow_the_stock_nodes(host, run_node):
    """On a single stream the results are those of the stock nodes."""
    generator = torch.Generator().manual_seed(0)
    plain = {"samples": torch.randn(3, 4, 8, 8, generator=generator), "noise_mask": torch.rand(3, 1, 8, 8)}
    numbered = plain | {"batch_index": [4, 6, 7]}
    for latent in (plain, numbered, plain | {"noise_mask": torch.rand(1, 1, 8, 8)}):
        with torch.inference_mode():
            pairs = [
                (host.node("RepeatLatentBatch")().repeat(latent, 2)[0], "CoDiRepeatLatentBatch", {"amount": 2}),
                *(
                    (
                        host.node("LatentFromBatch")().frombatch(latent, index, 2)[0],
                        "CoDiLatentFromBatch",
                        {"batch_index": index, "length": 2},
                    )
                    for index in (0, 1, -1, 7, -9)
                ),
            ]
        for stock, name, inputs in pairs:
            (ours,) = run_node(name, samples=latent, **inputs)
            assert ours.keys() == stock.keys()
            assert torch.equal(ours["samples"], stock["samples"])
            assert torch.equal(ours["noise_mask"], stock["noise_mask"])
            assert ours.get("batch_index") == stock.get("batch_index")


def test_masks_of_frames_are_none_of_a_batch(run_node):
    """A mask with fewer axes than a video has one row for each frame."""
    video = torch.zeros(2, 4, 3, 8, 8)
    joint = {"samples": video, "noise_mask": torch.rand(3, 1, 8, 8)}
    (one,) = run_node("CoDiLatentFromBatch", samples=joint, batch_index=1, length=1)
    assert torch.equal(one["noise_mask"], joint["noise_mask"])


def test_latents_are_batched_with_their_masks(run_node):
    first, second = latent_of("ltxav", 0), latent_of("ltxav", 1)
    off = dict.fromkeys(("image", "video", "audio", "text"), False)
    (held,) = run_node("CoDiHoldStreams", samples=second, streams="1", **off)
    (batch,) = run_node("CoDiBatchLatents", latents={"latent_1": first, "latent_2": held})
    assert equal(rows(batch), [torch.cat(pair) for pair in zip(rows(first), rows(second))])
    assert [mask.flatten(1).mean(1).tolist() for mask in rows(batch, "noise_mask")] == [[1, 0], [1, 1]]
    assert batch["batch_index"] == [0, 0]
    (plain,) = run_node("CoDiBatchLatents", latents={"latent_1": first, "latent_2": second})
    assert "noise_mask" not in plain
    (same,) = run_node("CoDiBatchLatents", latents={"latent_1": held, "latent_2": held})
    assert equal(rows(same, "noise_mask"), rows(held, "noise_mask"))
    with pytest.raises(ValueError, match="^latents: latent_3 has streams of shapes .* connect latents of the same"):
        run_node("CoDiBatchLatents", latents={"latent_1": first, "latent_3": latent_of("h3")})
    with pytest.raises(ValueError, match="^latents: there is nothing to batch"):
        run_node("CoDiBatchLatents", latents={})


@pytest.fixture
def with_noise(run_node):
    """What a sampler makes of a latent with noise of its own, and of one with the node's; and the node's latent."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import DisableNoise, Noise_RandomNoise, SamplerCustomAdvanced

    def call(name, latent):
        guider, sampler = core.guider(name), comfy.samplers.sampler_object("euler")
        given = {"model": guider.model_patcher, "noise": Noise_RandomNoise(3), "latent_image": latent}
        sigmas = core.sigmas_of(guider.model_patcher, 4, "simple")[2:]
        with torch.inference_mode():
            expected = SamplerCustomAdvanced.execute(Noise_RandomNoise(3), guider, sampler, sigmas, latent).args[0]
            (noisy,) = run_node("CoDiAddNoise", sigmas=sigmas, **given)
            (silent,) = DisableNoise.execute().args
            result = SamplerCustomAdvanced.execute(silent, guider, sampler, sigmas, noisy).args[0]
        return expected, result, noisy

    return call


@pytest.mark.parametrize("name", ["ltxav", "h3", "sd15"])
def test_noise_is_what_a_sampler_adds(host, with_noise, name):
    """So sampling from it without noise equals sampling with noise."""
    latent = {"samples": core.latent(name, 0)} if name == "sd15" else latent_of(name)
    split = host.module("nodes.runtime.latent_packing").split
    for one, other, noisy in zip(*(split(given["samples"]) for given in with_noise(name, latent)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(one, noisy, atol=0.1)


def test_what_is_kept_gets_no_noise(run_node, with_noise):
    """LTX-2 sees kept parts without noise, so here, too, the results are equal."""
    latent = latent_of("ltxav")
    (masked,) = run_node("CoDiSetStreamMask", samples=latent, stream="2", start=0.5, end=1.0)
    expected, result, noisy = with_noise("ltxav", masked)
    for one, other in zip(rows(expected), rows(result), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(rows(noisy)[1][:, :, :12], rows(latent)[1][:, :, :12])
    assert (rows(noisy)[1][:, :, 13:] != rows(latent)[1][:, :, 13:]).all()


def test_noise_that_leaves_nothing(run_node):
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    given = {"model": core.build("ltxav"), "noise": Noise_RandomNoise(0), "latent_image": latent_of("ltxav")}
    with pytest.raises(ValueError, match="^sigmas: at 1 nothing is left .* begin at a lower one"):
        run_node("CoDiAddNoise", sigmas=torch.tensor([1.0, 0.0]), **given)
    (same,) = run_node("CoDiAddNoise", sigmas=torch.tensor([]), **given)
    assert same is given["latent_image"]


def test_one_stream_is_upscaled(host, run_node, models, denoise):
    latent = latent_of("ltxav")
    (large,) = run_node(
        "CoDiUpscaleStream", samples=latent, stream="video", upscale_method="bicubic", scale_by=2.0
    )  # fmt: skip
    video, audio = rows(large)
    with torch.inference_mode():
        (stock,) = host.node("LatentUpscaleBy")().upscale({"samples": rows(latent)[0]}, "bicubic", 2.0)
    assert torch.equal(video, stock["samples"]) and torch.equal(audio, rows(latent)[1])
    assert rows(denoise("ltxav", models["ltxav"], large, denoise=0.5))[0].shape == (1, 128, 4, 4, 6)
    for given, message in (
        ({"stream": "audio"}, "stream: audio has no width and height"),
        ({"stream": "1, 2"}, "stream: '1, 2' is not one stream"),
        ({"stream": ""}, "stream: '' is not one stream"),
        ({"upscale_method": "best"}, "upscale_method: 'best' is none"),
        ({"scale_by": 9.0}, "scale_by: "),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            run_node(
                "CoDiUpscaleStream",
                **{"samples": latent, "stream": "1", "upscale_method": "area", "scale_by": 2.0} | given,
            )


def test_a_coupler_ranks_results_of_any_models(host, run_node, coupler_of):
    """The sample with the greatest log density ratio of clean latents is taken, with its masks."""
    coupler, names = coupler_of("flux", "ace"), ("flux", "ace")
    generator = torch.Generator().manual_seed(5)
    streams = [torch.randn(6, *core.SHAPES[name], generator=generator) for name in names]
    latent = {"latent_1": {"samples": streams[0]}, "latent_2": {"samples": streams[1], "type": "audio"}}
    (joint,) = run_node("CoDiJoinLatents", latents=latent)
    found = []
    for i in range(6):
        tokens = [coupler.coupler.tokens(k, z[i : i + 1], torch.zeros(1)) for k, z in enumerate(streams)]
        found.append(float(coupler.coupler.score(*tokens)))
    best = max(range(6), key=found.__getitem__)
    (picked,) = run_node("CoDiPickBest", samples=joint, coupler=coupler)
    assert equal(rows(picked), [z[best : best + 1] for z in streams]) and len(set(found)) == 6
    reordered = {"samples": type(joint["samples"])([z.flip(0) for z in streams])}
    (same,) = run_node("CoDiPickBest", samples=reordered, coupler=coupler)
    assert equal(rows(same), rows(picked))


def test_what_cannot_be_ranked(run_node, coupler_of, tiny, empty):
    latent, coupler = latent_of("ltxav"), coupler_of("flux", "ace")
    for given, message in (
        ({"samples": latent}, "model, coupler: .* connect exactly one"),
        ({"samples": latent, "coupler": coupler, "model": tiny[0]}, "model, coupler: .* connect exactly one"),
        ({"samples": latent, "coupler": object()}, "coupler: this is none"),
        ({"samples": latent, "coupler": coupler}, "coupler: a latent of shape .* connect another one"),
        ({"samples": {"samples": rows(latent)[0]}, "coupler": coupler}, "samples: .* only one stream"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            run_node("CoDiPickBest", **given)


def test_in_a_graph(host):
    """As the executor calls the nodes, growing inputs included."""
    register(host._nodes.NODE_CLASS_MAPPINGS)
    Give.values["latent"] = latent_of("ltxav")
    graph = Graph()
    start = graph.add("TestGive", name="latent")
    masked = graph.add("CoDiSetStreamMask", samples=start, stream="2", start=0.5, end=1.0)
    part = graph.add("CoDiSliceLatent", samples=masked, unit="seconds", start=-0.5, length=0.5)
    twice = graph.add("CoDiRepeatLatentBatch", samples=part, amount=2)
    both = graph.add("CoDiBatchLatents", **{"latents.latent_1": twice, "latents.latent_2": part})
    last = graph.add("CoDiLatentFromBatch", samples=both, batch_index=2, length=1)
    graph.keep("part", part)
    graph.keep("last", last)
    host.run(graph.prompt)
    (part,), (last,) = Kept.values["part"], Kept.values["last"]
    assert equal(rows(part), rows(last)) and rows(last)[1].shape[2] < 25 and last["batch_index"] == [0]
