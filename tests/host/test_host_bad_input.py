"""Whatever a queued prompt is given, the user reads one sentence about it, and the next prompt works."""

import re
from types import SimpleNamespace

import pytest
import torch
from host.comfy_host import ExecutionFailed
from host.graph import Give, Kept, register
from host.tiny_checkpoint import save_tiny, tiny_config
from host.wired_graph import (
    AUDIO,
    IMAGE,
    NAN,
    TEXT_ONLY,
    TINY,
    Wired,
    area,
    components,
    decoded,
    emptied,
    encoded,
    guided,
    guided_apart,
    guided_by,
    in_context,
    interpolated,
    joined,
    make_audio,
    make_images,
    masked,
    mixed,
    mixed_by_sockets,
    nested,
    of_image,
    of_text,
    of_text_only,
    own_sampler,
    prompted,
    run,
    sampled,
    silent,
    similar,
    text_edited,
    versatile,
    video,
    with_prompts,
    works,
)

# The advice in a message about a mistake.
REMEDY = r"\b(check|choose|connect|encode|give|join|load|look|lower|make|mix|press|put|remove|scale|set|start|switch)\b"


@pytest.fixture(scope="module", autouse=True)
def nodes(host):
    register(host._nodes.NODE_CLASS_MAPPINGS)
    backend = host.module("codi_backend")
    parts = backend.checkpoints.parts.part_names(tiny_config(backend))
    save_tiny(host.models / TEXT_ONLY, without=tuple(part for part in parts if not part.endswith(".text")))
    yield
    Give.values.clear()
    Kept.values.clear()
    host.forget()


MISTAKES = {
    # The wrong model for a latent, and the other way round.
    "latent of Stable Diffusion 3": (sampled({"samples": torch.ones(1, 16, 8, 8)}), "latent_image: a latent of shape"),
    "latent of CoDi's built-in model": (sampled({"samples": torch.ones(1, 64, 1, 1)}), "latent_image: a latent of sha"),
    "MODEL of another kind": (
        lambda g: g.empty(g.given(SimpleNamespace(model=torch.nn.Identity())), "image"),
        "model: this is not a CoDi model",
    ),
    "another MODEL in our sampler": (
        lambda g: g.add(
            "CoDiAlignment", model=g.given(SimpleNamespace(model=torch.nn.Identity())), mode="none", strength=1.0
        ),
        "model: this is not a CoDi model",
    ),
    "latent of another VAE": (decoded("Image", torch.ones(1, 16, 8, 8)), "samples: there is no image stream"),
    # Batches.
    "batches that cannot be joined": (
        joined(emptied("image", batch_size=2), emptied("audio", batch_size=3)),
        "latents: the batch sizes differ",
    ),
    "batches in a latent made by hand": (
        guided(lambda: nested(IMAGE.expand(2, -1, -1, -1), AUDIO)),
        "latent_image: the batch sizes of the streams differ",
    ),
    "batches in a latent for our sampler": (
        own_sampler(lambda: nested(IMAGE.expand(2, -1, -1, -1), AUDIO)),
        "latent_image: the batch sizes of the streams differ",
    ),
    "three prompts for two results": (
        with_prompts(lambda g, _: g.given([[torch.ones(3, 1, 64), {}]]), "image", batch=2),
        "positive: 3 prompts do not go with 2 results",
    ),
    "two audio tracks for one video": (
        decoded("Video", torch.zeros(1, 4, 2, 4, 4), audio=make_audio(batch=2)),
        "audio: a batch of 2 does not match 1 videos",
    ),
    # Nothing.
    "empty audio as prompt": (prompted("Audio", make_audio(0)), "audio: this is empty"),
    "empty audio to encode": (encoded("Audio", make_audio(0)), "audio: this is empty"),
    "empty audio to compare": (similar(audio=make_audio(0)), "audio: this is empty"),
    "empty audio for a video": (
        decoded("Video", torch.zeros(1, 4, 2, 4, 4), audio=make_audio(0)),
        "audio: this is empty",
    ),
    "video of no frames as prompt": (prompted("Video", lambda: video(0)), "video: there is no image"),
    "video of no frames to encode": (encoded("Video", lambda: video(0)), "video: this video has no frames"),
    "no frames as prompt": (prompted("Video", make_images(0)), "video: there is no image"),
    "no frames to encode": (encoded("Video", make_images(0)), "video: this video has no frames"),
    "no image as prompt": (prompted("Image", make_images(0)), "image: there is no image"),
    "no image to encode": (encoded("Image", make_images(0)), "image: there is no image"),
    "no sample": (sampled({"samples": torch.zeros(0, 4, 4, 4)}), "latent_image: this latent is empty"),
    "no sample to decode": (decoded("Image", torch.zeros(0, 4, 4, 4)), "samples: this latent is empty"),
    "latent of no frames": (sampled({"samples": torch.zeros(1, 4, 0, 4, 4)}), "latent_image: this latent is empty"),
    "audio of a silent video as prompt": (prompted("Audio", silent), "audio: there is no audio"),
    "audio of a silent video to encode": (encoded("Audio", silent), "audio: there is no audio"),
    "audio of a silent video to compare": (similar(audio=silent), "audio: there is no audio"),
    # NaN.
    "image with NaN as prompt": (prompted("Image", make_images(value=NAN)), "image: .* not finite"),
    "image with NaN to encode": (encoded("Image", make_images(value=NAN)), "image: .* not finite"),
    "video with NaN": (encoded("Video", make_images(3, value=NAN)), "video: .* not finite"),
    "audio with NaN as prompt": (prompted("Audio", make_audio(value=NAN)), "audio: .* not finite"),
    "audio with NaN to encode": (encoded("Audio", make_audio(value=NAN)), "audio: .* not finite"),
    "audio with NaN for a video": (
        decoded("Video", torch.zeros(1, 4, 2, 4, 4), audio=make_audio(value=NAN)),
        "audio: .* not finite",
    ),
    "latent with NaN": (sampled({"samples": torch.full((1, 4, 4, 4), NAN)}), "latent_image: .* not finite"),
    "joint latent with NaN": (sampled(lambda: nested(IMAGE, AUDIO * NAN)), "latent_image: the audio .* not finite"),
    "image latent with NaN": (decoded("Image", IMAGE * NAN), "samples: .* not finite"),
    "audio latent with NaN": (decoded("Audio", AUDIO * NAN), "samples: .* not finite"),
    "text latent with NaN": (decoded("Text", torch.full((1, 24, 1, 1), NAN)), "samples: .* not finite"),
    "prompt with NaN": (
        with_prompts(lambda g, _: g.given([[torch.full((1, 1, 64), NAN), {}]]), "image"),
        "positive: .* not finite",
    ),
    # Sizes.
    "width of an empty latent": (emptied("image", width=72, height=32), "width: 72 pixels"),
    "image to encode": (encoded("Image", make_images(1, 30, 33)), "image: 33 x 30 pixels .* scale it to 32 x 24"),
    "image to sample from": (sampled({"samples": torch.zeros(1, 4, 5, 4)}), "latent_image: the image latent is 5 x 4"),
    "two channels to encode": (encoded("Image", torch.zeros(1, 32, 32, 2)), "image: this is of shape"),
    "frames of a latent": (
        sampled({"samples": torch.zeros(1, 4, 121, 4, 4)}),
        "latent_image: the video latent has",
    ),
    # A checkpoint of texts alone.
    "text model asked for a video latent": (of_text_only("CoDiEmptyLatent"), "model: 'tiny' does not generate video"),
    "text model asked for a video": (of_text_only("CoDiSampleVideo"), "model: 'tiny' does not generate video"),
    # Prompts for regions, and of other models.
    "area": (with_prompts(area, "image", "audio"), "positive: a prompt for an area"),
    "mask of a prompt": (with_prompts(masked, "image", "audio"), "positive: a prompt for an area"),
    "prompt of another CLIP": (
        with_prompts(lambda g, _: g.given([[torch.zeros(1, 77, 768), {}]]), "image"),
        "positive: .* width 64 .* width 768",
    ),
    "prompts of two CLIPs": (interpolated, "prompt_2: a prompt of 77 tokens of width 768"),
    # Streams.
    "two image streams that were joined": (
        lambda g: g.sample(g.model, g.text(), joined(emptied("image"), emptied("image", "audio"))(g)),
        "latent_image: the latent holds two image",
    ),
    "two image streams": (sampled(lambda: nested(IMAGE, IMAGE)), "latent_image: the latent holds two image"),
    # Versatile Diffusion, and what is not of it.
    "prompt for Versatile Diffusion": (versatile(guided_by(Wired.text)), "positive: this is a prompt"),
    "prompt of stock nodes for Versatile Diffusion": (
        versatile(guided_by(lambda g: [g.given([[torch.zeros(1, 77, 64), {}]])] * 2)),
        "positive: this is a prompt",
    ),
    "context for CoDi": (guided_by(of_text), "positive: this is a context, .* load a Versatile Diffusion"),
    "mixture for CoDi": (guided_by(mixed(of_text, of_image)), "positive: this is a context"),
    "context for a joint latent of CoDi": (
        lambda g: g.sample(g.model, of_text(g), g.empty(g.model, "image", "audio")),
        "positive: this is a context",
    ),
    "audio of Versatile Diffusion": (
        versatile(guided_by(of_text, torch.ones(1, 8, 8, 8))),
        "latent_image: a latent of shape",
    ),
    "video of Versatile Diffusion": (
        versatile(guided_by(of_text, torch.zeros(1, 4, 2, 4, 4))),
        "latent_image: the model .* makes images, not videos",
    ),
    "audio as prompt of Versatile Diffusion": (
        versatile(prompted("Audio", make_audio())),
        "prompt_encoders: the loaded checkpoint has no audio prompt encoder",
    ),
    "two contexts for one result": (
        versatile(guided_by(in_context(make_images(2)))),
        "positive: 2 prompts do not go with 1 results",
    ),
    "no image as context": (versatile(in_context(make_images(0))), "image: there is no image"),
    "image with NaN as context": (versatile(in_context(make_images(value=NAN))), "image: .* not finite"),
    "two channels as context": (versatile(in_context(torch.zeros(1, 32, 32, 2))), "image: this is of shape"),
    "two masks for one image": (
        versatile(in_context(make_images(), mask=torch.ones(2, 32, 32))),
        "mask: 2 masks do not go with 1 images",
    ),
    "empty mask": (versatile(in_context(make_images(), mask=torch.ones(1, 0, 32))), "mask: this is of shape"),
    "mask of an image with NaN": (
        versatile(in_context(make_images(), mask=torch.full((1, 8, 8), NAN))),
        "mask: .* not finite",
    ),
    "focus on few tokens": (in_context(make_images(), focus=0.2), "focus: .* set it to 0.5"),
    "prompt in a mixture": (versatile(mixed(of_text, Wired.text)), "context_2: this is a prompt"),
    "mixture in a mixture": (
        versatile(mixed(of_text, mixed(of_text, of_image))),
        "context_2: this is a mixture already",
    ),
    "context without its unconditional": (
        versatile(mixed_by_sockets(of_text, of_image, **{"contexts.context_3": lambda g: of_text(g)[0]})),
        "unconditional_3: there is none for context_3",
    ),
    "unconditional without its context": (
        versatile(mixed_by_sockets(of_text, of_image, **{"unconditionals.unconditional_3": lambda g: of_text(g)[1]})),
        "unconditionals: one is for context_3",
    ),
    "unconditional of another kind": (
        versatile(mixed(of_text, lambda g: [of_text(g)[0], of_image(g)[1]])),
        "unconditional_2: this holds other contexts than context_2",
    ),
    "batches of contexts": (
        versatile(mixed(in_context(make_images(2)), in_context(make_images(3)))),
        "contexts: The contexts have batch sizes",
    ),
    "text and image side by side": (
        versatile(mixed(of_text, of_image, method="concatenate")),
        "contexts: Contexts of image and text cannot be concatenated",
    ),
    "shares side by side": (
        versatile(mixed(of_image, of_image, method="concatenate", **{"contexts.weight_1": 2.0})),
        "weights: the method concatenate has no weights",
    ),
    "shares of nothing": (
        versatile(mixed(of_text, of_image, **{"contexts.weight_1": 0.0, "contexts.weight_2": 0.0})),
        "weights: all are 0",
    ),
    "guidance of prompts": (versatile(guided_apart(Wired.text)), "positive: this is a prompt"),
    "guidance of a context that is not there": (
        versatile(guided_apart(mixed(of_text, of_image), **{"cfgs.cfg_3": 2.0})),
        "cfgs: one is for context_3",
    ),
    "components of a text": (versatile(components(of_text)), "conditioning: this is not the context of one image"),
    "components of a mixture": (versatile(components(mixed(of_text, of_image))), "conditioning: this is a mixture"),
    "components of a prompt": (components(Wired.text), "conditioning: this is a prompt"),
    "editing an image": (versatile(text_edited(IMAGE)), "samples: there is no text stream"),
    # Masks.
    "mask with NaN": (
        sampled({"samples": IMAGE, "noise_mask": torch.full((1, 32, 32), NAN)}),
        "latent_image: .*mask.* not finite",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake(host, name):
    wire, message = MISTAKES[name]
    with pytest.raises(ExecutionFailed) as failure:
        run(host, wire)
    text = str(failure.value).strip()
    assert re.match(message, text), text
    assert "\n" not in text and text.endswith("."), text
    inputs = host.node(failure.value.node).INPUT_TYPES()
    known = {key for group in ("required", "optional") for key in inputs.get(group, {})}
    grown = {f"{name}_{i}" for name in ("prompt", "context", "unconditional") for i in range(1, 17)}
    known |= grown | {"positive", "negative"}  # which guiders have
    known |= {"weights"}  # weight_1 and so on, all of them
    named, advice = text.split(": ", 1)
    assert set(named.split(", ")) <= known, f"{failure.value.node} has no input {named}"
    assert re.search(REMEDY, advice), text
    works(host)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "other", "cut short"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
def test_a_corrupt_file(host, content, suffix):
    if content is None:
        whole = host.models / TINY
        if suffix != ".safetensors":
            whole = host.models / "whole.pth"
            torch.save({"state": torch.zeros(1000)}, whole)
        content = whole.read_bytes()[:-100]
    name = f"broken{suffix}"
    (host.models / name).write_bytes(content)
    try:
        graph = Wired(name)
        graph.end(graph.text())
        with pytest.raises(ExecutionFailed, match=rf"^checkpoint: .*{re.escape(name)}"):
            host.run(graph.prompt)
    finally:
        (host.models / name).unlink()
    works(host)


def test_an_unknown_file(host):
    graph = Wired("no such file.safetensors")
    graph.end(graph.text())
    with pytest.raises(ValueError, match="no such file"):  # which the core reports before anything runs
        host.run(graph.prompt)
    works(host)


# What looks odd and has to work.


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44099, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_audio_of_any_rate_and_channels(host, rate, channels):
    def latent(g):
        return g.add("CoDiEncodeAudio", audio=g.given(given), audio_vae=g.audio_vae, seconds=0.64)

    given = make_audio(rate // 2, channels, rate)
    ((embedding, _),) = run(host, prompted("Audio", given))
    assert embedding.shape == (1, 1, 64) and embedding.isfinite().all()
    samples = run(host, latent)["samples"]
    assert samples.shape == (1, 8, 8, 8) and samples.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 17), (200, 31)])
def test_prompts_of_any_size(host, height, width):
    for wire in (
        prompted("Image", make_images(1, height, width)),
        prompted("Video", make_images(3, height, width)),
        prompted("Image", torch.zeros(1, height, width, 4)),  # with transparency
    ):
        ((embedding, _),) = run(host, wire)
        assert embedding.shape == (1, 1, 64) and embedding.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 32, 32), (32, 32), (1, 1, 5, 7), (3, 32, 32), (1, 1, 4, 4)])
@pytest.mark.parametrize("joint", [False, True])
def test_masks_of_any_shape(host, shape, joint):
    """The core fits them to the first stream."""
    latent = {"noise_mask": torch.zeros(shape)} | (nested(IMAGE + 1, AUDIO) if joint else {"samples": IMAGE + 1})
    result = run(host, sampled(latent))["samples"]
    image = result.unbind()[0] if joint else result
    torch.testing.assert_close(image, IMAGE + 1, atol=1e-5, rtol=0)


def test_a_video_without_audio_for_a_video(host):
    made = run(host, decoded("Video", torch.zeros(1, 4, 2, 4, 4), audio=silent))
    assert made.get_components().audio is None
