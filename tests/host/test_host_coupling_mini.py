"""The small model's image network and audio network as two MODELs of a graph: coupled, they agree."""

import pytest
from host.graph import Graph, Kept, register

RESULTS, SEED = 24, 1


@pytest.fixture(scope="module", autouse=True)
def nodes(host):
    register(host._nodes.NODE_CLASS_MAPPINGS)
    host.forget()
    yield
    Kept.values.clear()
    host.forget()


def single(graph, stream):
    """A loader of one network, with an empty prompt and an empty latent; the guider, the latent and the loader."""
    networks = {"image_and_video": stream == "image", "audio": stream == "audio", "text": False}
    loaded = graph.add("CoDiLoadModel", checkpoint="mini (built in)", **networks)
    prompt = graph.add("CoDiPromptText", prompt_encoders=loaded[1], text="")
    guider = graph.add("CFGGuider", model=loaded, positive=prompt[0], negative=prompt[1], cfg=1.0)
    return guider, graph.empty(loaded, stream, batch_size=RESULTS), loaded


def couple(weight, image=None):
    """A graph with both; `image` is a LATENT to hold."""
    graph = Graph()
    parts = [single(graph, stream) for stream in ("image", "audio")]
    whole = graph.add("CoDiLoadModel", checkpoint="mini (built in)", image_and_video=True, audio=True, text=False)
    guiders = {f"guiders.guider_{i}": part[0] for i, part in enumerate(parts, start=1)}
    settings = {"weight": weight, "start_percent": 0.0, "end_percent": 1.0, "lead": 1}
    coupler = graph.add("CoDiCouplerFromModel", model=whole)
    guider = graph.add("CoDiCoupleGuiders", coupler=coupler, **guiders, **settings)
    streams = {"latents.latent_1": parts[0][1], "latents.latent_2": parts[1][1]}
    latent = graph.add("CoDiJoinLatents", keep_order=True, **streams)
    if image is not None:
        off = dict.fromkeys(("image", "video", "audio", "text"), False)
        encoded = graph.add("CoDiEncodeImage", image=image(graph), vae=parts[0][2][2])
        streams["latents.latent_1"] = graph.add("RepeatLatentBatch", samples=encoded, amount=RESULTS)
        latent = graph.add("CoDiJoinLatents", keep_order=True, **streams)
        latent = graph.add("CoDiHoldStreams", samples=latent, streams="1", **off)
    sampled = graph.add(
        "SamplerCustomAdvanced", noise=graph.add("RandomNoise", noise_seed=SEED), guider=guider, latent_image=latent,
        sampler=graph.add("KSamplerSelect", sampler_name="dpmpp_2m_sde"),
        sigmas=graph.add("BasicScheduler", model=parts[0][2], scheduler="karras", steps=30, denoise=1.0),
    )  # fmt: skip
    apart = graph.add("CoDiSplitLatent", samples=sampled)
    graph.keep("image", graph.add("VAEDecode", samples=apart[4], vae=parts[0][2][2]))
    graph.keep("audio", graph.add("CoDiDecodeAudio", samples=apart[5], audio_vae=parts[1][2][3]))
    return graph.prompt


def judged(host, prompt):
    """What rules see in the images and hear in the sounds."""
    judges = host.module("codi_backend.evaluation.judges")
    host.run(prompt)
    (images,), (sound,) = Kept.values["image"], Kept.values["audio"]
    return [
        (judges.judge_image(image.movedim(-1, 0)), judges.judge_audio(wave, sound["sample_rate"]))
        for image, wave in zip(images, sound["waveform"], strict=True)
    ]


def agreement(found, attribute):
    values = [(getattr(image, attribute), getattr(audio, attribute)) for image, audio in found]
    return sum(one == other and one is not None for one, other in values) / len(values)


def test_images_and_sounds_of_two_models_agree(host):
    apart, coupled = judged(host, couple(0.0)), judged(host, couple(3.0))
    print({name: (agreement(apart, name), agreement(coupled, name)) for name in ("colour", "shape", "count")})
    assert agreement(apart, "colour") < 0.45 and agreement(coupled, "colour") > 0.6
    assert agreement(coupled, "shape") > agreement(apart, "shape") and agreement(coupled, "count") > 0.5


def test_sounds_for_a_held_image(host):
    """24 times the same image of two green stars; the image model is never run."""

    def image(graph):
        scene = {"colour": "green", "shape": "star", "count": 2, "tempo": "slow", "start": 0.3, "seed": 5}
        return graph.add("CoDiExampleScene", **scene)[0]

    found = judged(host, couple(3.0, image))
    assert {one.colour for one, _ in found} == {"green"}
    share = sum(audio.colour == "green" for _, audio in found) / RESULTS
    print(share)
    assert share > 0.5
