"""Which files are loaded, and which of their parts."""

import dataclasses
import json
import os

import pytest
import torch
from host.published_files import save_published
from host.tiny_checkpoint import save_tiny, tiny_config, tiny_parts

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture
def split(host):
    """The tiny checkpoint, one file a part, in a folder of ``models/codi``."""
    backend = host.module("codi_backend")
    folder = host.models / "split"
    folder.mkdir(exist_ok=True)
    config = tiny_config(backend)
    for name, part in tiny_parts(config).items():
        backend.checkpoints.native.save_parts(folder / f"{name}.safetensors", config, {name: part})
    return folder


@pytest.fixture
def published(host, monkeypatch):
    """Small files as the published ones are, in a folder; their model."""
    folder = host.models / "published"
    model = save_published(host, monkeypatch, folder)
    return host.module("codi_backend"), model, folder


@pytest.fixture
def parts_read(host, monkeypatch):
    """Names of the parts whose weights are read, in order."""
    managed, names = host.module("nodes.runtime.patchers"), []
    read = managed.Weights.read

    def recorded(weights, *args, **options):
        names.append(weights.part)
        return read(weights, *args, **options)

    monkeypatch.setattr(managed.Weights, "read", recorded)
    return names


def networks(model) -> set[str]:
    return set(model.model.codi_config.diffuser.networks)


def test_parts_are_read_when_they_are_used(run_node, parts_read):
    _, encoders, vae, audio_vae, text_vae = run_node("CoDiLoadModel", checkpoint="mini (built in)")
    assert parts_read == [] and vae.latent_channels == 4 and audio_vae.sample_rate == 16000
    for _ in range(2):
        run_node("CoDiPromptText", prompt_encoders=encoders, text="one red star")
    assert parts_read == ["prompt_encoders.text"]
    run_node("CoDiDecodeText", samples={"samples": torch.zeros(1, 64, 1, 1)}, text_vae=text_vae)
    run_node("CoDiDecodeImage", samples={"samples": torch.zeros(1, 4, 8, 8)}, vae=vae)
    assert parts_read == ["prompt_encoders.text", "autoencoders.text", "autoencoders.image"]


def test_networks_that_are_left_out_are_not_there(run_node, tiny):
    (model, *_) = run_node("CoDiLoadModel", checkpoint="tiny.safetensors", image_and_video=False, text=False)
    assert networks(tiny[0]) == {"image", "audio", "text"} and networks(model) == {"audio"}
    assert 0 < model.model_size() < tiny[0].model_size() / 2
    build, arguments = model.cached_patcher_init
    with torch.inference_mode():
        assert networks(build(*arguments)) == {"audio"}


def test_a_folder_is_all_its_files(host, run_node, split, sample, empty, tiny):
    choices = host.module("nodes.runtime.files").model_choices()
    assert choices[0] == "mini (built in)" and {"split/", "split/diffuser.audio.safetensors"} <= set(choices)
    model, encoders, *others = run_node("CoDiLoadModel", checkpoint="split/")
    assert all(others) and encoders.text and encoders.image and encoders.audio
    whole, together = sample(empty()), sample(empty(), model)
    assert all(torch.equal(a, b) for a, b in zip(whole, together, strict=True))


def test_a_folder_is_loaded_again_when_one_of_its_files_changes(host, split):
    fingerprint = host.module("nodes.runtime.files").fingerprint
    before = fingerprint("split/")
    assert fingerprint("split/") == before
    os.utime(split / "autoencoders.text.safetensors", (0, 0))
    assert fingerprint("split/") != before


def test_files_of_two_models(host, run_node, split):
    backend = host.module("codi_backend")
    config = dataclasses.replace(tiny_config(backend), guidance=1.0)
    backend.checkpoints.native.save_parts(
        split / "z.safetensors", config, {"diffuser.image": {"weight": torch.zeros(1)}}
    )
    try:
        with pytest.raises(ValueError, match=r"^checkpoint: z.safetensors belongs to another model"):
            run_node("CoDiLoadModel", checkpoint="split/")
    finally:
        (split / "z.safetensors").unlink()


@pytest.mark.parametrize(("choice", "kind"), [("nothing.safetensors", "file"), ("nothing/", "folder")])
def test_unknown_choice(run_node, choice, kind):
    with pytest.raises(ValueError, match=f"^checkpoint: there is no {kind} '{choice}' in models/codi"):
        run_node("CoDiLoadModel", checkpoint=choice)


def test_missing_parts_are_named_by_whoever_needs_them(host, run_node):
    name = "no_ears.safetensors"
    missing = ("prompt_encoders.audio", "autoencoders.text", "diffuser.audio")
    save_tiny(host.models / name, without=missing)
    model, encoders, vae, audio_vae, text_vae = run_node("CoDiLoadModel", checkpoint=name)
    assert networks(model) == {"image", "text"} and vae and audio_vae and text_vae is None
    audio = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}
    with pytest.raises(ValueError, match=r"^prompt_encoders: the loaded checkpoint has no audio prompt encoder; load"):
        run_node("CoDiPromptAudio", prompt_encoders=encoders, audio=audio)


def generate(checkpoint: str, **switches) -> dict:
    return {
        "1": {"class_type": "CoDiLoadModel", "inputs": {"checkpoint": checkpoint} | switches},
        "2": {"class_type": "CoDiPromptText", "inputs": {"prompt_encoders": ["1", 1], "text": "a star"}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                **{"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 1], "latent_image": ["3", 0]},
                **{"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }


def test_a_model_without_networks_stops_what_needs_it_with_a_sentence(host):
    networks = tuple(f"diffuser.{name}" for name in ("image", "audio", "text"))
    save_tiny(host.models / "parts.safetensors", without=networks)
    host.forget()
    switches = {"image_and_video": False, "audio": False, "text": False}
    assert "model: all diffusion networks are switched off" in blocked(host, generate("tiny.safetensors", **switches))
    switches = dict.fromkeys(switches, True)
    assert "model: parts.safetensors holds no diffusion network" in blocked(
        host, generate("parts.safetensors", **switches)
    )
    assert host.run(generate("tiny.safetensors", **switches))["6"]["images"]


def blocked(host, prompt: dict) -> str:
    """What the user reads of a node that could not run because of what it got."""
    import server

    sent = []
    send = server.PromptServer.instance.send_sync
    server.PromptServer.instance.send_sync = lambda event, data, sid=None: sent.append((event, data))
    try:
        assert "6" not in host.run(prompt)
    finally:
        server.PromptServer.instance.send_sync = send
    return " ".join(data["exception_message"] for event, data in sent if event == "execution_error")


def test_stored_precision_does_not_matter_to_a_cpu(host, run_node, tiny):
    backend = host.module("codi_backend")
    config = tiny_config(backend)
    path = host.models / "half.safetensors"
    backend.checkpoints.native.save_parts(path, config, tiny_parts(config), dtype=torch.float16)
    encoders = run_node("CoDiLoadModel", checkpoint=path.name)[1]
    for kind, content in {"text": ["a star"], "image": torch.rand(1, 3, 40, 40, generator=GENERATOR)}.items():
        with torch.inference_mode():
            half, full = encoders.prompt(kind, content)[0], tiny[1].prompt(kind, content)[0]
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_encoders_keep_their_weights_in_the_precision_that_the_user_chose(host, run_node, monkeypatch, tiny, dtype):
    import comfy.model_management as mm

    contents = {
        "text": (["a red star"],),
        "image": (torch.rand(1, 3, 40, 40, generator=GENERATOR),),
        "video": (torch.rand(1, 3, 3, 40, 40, generator=GENERATOR),),
        "audio": (torch.rand(1, 1, 8000, generator=GENERATOR) - 0.5, 16000),
    }
    with torch.inference_mode():
        fine = {kind: tiny[1].prompt(kind, *content)[0] for kind, content in contents.items()}
    # As on a GPU, where ComfyUI's switches such as --fp8_e4m3fn-text-enc decide.
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(mm, "text_encoder_dtype", lambda device=None: dtype)
    encoders = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")[1]
    for kind, content in contents.items():
        with torch.inference_mode():
            coarse = encoders.prompt(kind, *content)[0]
        encoder = encoders.need("image" if kind == "video" else kind).patcher.model
        assert {parameter.dtype for parameter in encoder.parameters() if parameter.ndim > 1} == {dtype}
        assert coarse.dtype == torch.float32 and not torch.equal(coarse, fine[kind]), kind
        assert 0.98 < (coarse * fine[kind]).sum() < 1.02, kind


def test_published_files_generate_in_all_modalities(run_node, published, sample):
    _, backend_model, _ = published
    model, encoders, vae, audio_vae, _ = run_node("CoDiLoadModel", checkpoint="published/")
    conditioning = run_node("CoDiPromptText", prompt_encoders=encoders, text="a star")
    with torch.inference_mode():
        expected = backend_model.prompt("text", "a star")
    torch.testing.assert_close(conditioning[0][0][0], expected.embedding)
    (latent,) = run_node(
        "CoDiEmptyLatent",
        model=model,
        **{"image": True, "video": True, "audio": True, "text": True, "width": 32, "height": 32},
        **{"frames": 2, "seconds": 0.3, "batch_size": 1},
    )
    streams = sample(latent, model, steps=2, conditioning=conditioning)
    assert [list(stream.shape) for stream in streams][0] == [1, 4, 4, 4] and len(streams) == 4
    (pixels,) = run_node("CoDiDecodeImage", samples={"samples": streams[0]}, vae=vae)
    (audio,) = run_node("CoDiDecodeAudio", samples={"samples": streams[2]}, audio_vae=audio_vae)
    with torch.inference_mode():
        torch.testing.assert_close(pixels.movedim(-1, 1), backend_model.decode("image", streams[0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(audio["waveform"], backend_model.decode("audio", streams[2]), atol=1e-4, rtol=0)
        latents = backend_model.encode("image", pixels.movedim(-1, 1))
        torch.testing.assert_close(vae.encode(pixels), latents, atol=1e-4, rtol=1e-4)
    assert vae.disable_offload is False  # ComfyUI's own network, which can be loaded in part


def test_a_published_network_alone_knows_the_scale_of_its_latents(run_node, published):
    (model, _, vae, *_) = run_node("CoDiLoadModel", checkpoint="published/CoDi_video_diffuser_8frames.pth")
    assert vae is None and networks(model) == {"image"}
    with torch.inference_mode():
        scaled = model.model.process_latent_in(torch.ones(1, 4, 8, 8))
    torch.testing.assert_close(scaled, torch.full((1, 4, 8, 8), 0.18215))


def test_published_texts_need_vocabularies(run_node, published):
    _, _, folder = published
    latents = {"samples": torch.zeros(1, 768, 1, 1)}
    text_vae = run_node("CoDiLoadModel", checkpoint="published/")[4]
    with pytest.raises(ValueError, match="^text_vae: .* put vocab.txt of BERT .* beside the checkpoint"):
        run_node("CoDiDecodeText", samples=latents, text_vae=text_vae)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(28992))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "vocab.json").write_text(json.dumps({f"\u0120w{i}": i for i in range(50257)}))
    (texts,) = run_node("CoDiDecodeText", samples=latents, text_vae=text_vae)
    assert len(texts) == 1 and isinstance(texts[0], str)
    for name in ("vocab.txt", "vocab.json"):
        (folder / name).unlink()
