"""A mistake gets a sentence that names the input and says what to do."""

import pytest
import torch
from host.comfy_host import ExecutionFailed
from host.tiny_checkpoint import save_tiny


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"width": 72}, "width: 72 pixels .* multiple of 16"),
        ({"height": 8192}, "height: 8192 pixels"),
        ({"seconds": -1.0}, "seconds: -1.0 s is out of range"),
        ({"image": False, "audio": False}, "image, audio: nothing is left"),
    ],
)
def test_bad_latents(empty, inputs, message):
    with pytest.raises(ValueError, match=message):
        empty(**inputs)


def test_latent_without_the_stream(run_node, tiny, empty):
    with pytest.raises(ValueError, match="samples: there is no audio stream"):
        run_node("CoDiDecodeAudio", samples=empty(audio=False), audio_vae=tiny[3])
    with pytest.raises(ValueError, match="samples: there is no image stream"):
        run_node("CoDiDecodeImage", samples=empty(image=False), vae=tiny[2])


def test_latent_with_nan(run_node, tiny):
    broken = {"samples": torch.full((1, 4, 8, 8), torch.nan)}
    with pytest.raises(ValueError, match="samples: the image latent has values that are not finite"):
        run_node("CoDiDecodeImage", samples=broken, vae=tiny[2])


def test_latent_of_another_model(sample):
    with pytest.raises(ValueError, match=r"latent_image: a latent of shape \[1, 16, 8, 8\]"):
        sample({"samples": torch.ones(1, 16, 8, 8)})


def test_prompt_of_another_encoder(sample, empty):
    strange = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="takes prompts of width 64"):
        sample(empty(), conditioning=(strange, strange))


def test_checkpoint_without_decoders(host, run_node, empty):
    name = "bare.safetensors"
    save_tiny(host.models / name, host.module("codi_backend"), without=("autoencoders.image", "autoencoders.audio"))
    _, _, vae, audio_vae = run_node("CoDiLoadModel", checkpoint=name)
    with pytest.raises(ValueError, match="vae: the loaded checkpoint has no image autoencoder"):
        run_node("CoDiDecodeImage", samples=empty(), vae=vae)
    with pytest.raises(ValueError, match="audio_vae: the loaded checkpoint has no audio autoencoder"):
        run_node("CoDiDecodeAudio", samples=empty(), audio_vae=audio_vae)


def test_wrong_file(host, run_node):
    (host.models / "notes.safetensors").write_text("not a checkpoint at all")
    with pytest.raises(ValueError, match=r"notes\.safetensors"):
        run_node("CoDiLoadModel", checkpoint="notes.safetensors")


def test_the_sentence_reaches_the_user_and_the_queue_goes_on(host):
    def prompt(width):
        return {
            "1": {"class_type": "CoDiLoadModel", "inputs": {"checkpoint": "tiny.safetensors"}},
            "2": {
                "class_type": "CoDiEmptyLatent",
                "inputs": {
                    "model": ["1", 0],
                    "image": True,
                    "audio": False,
                    "width": width,
                    "height": 0,
                    "seconds": 0,
                    "batch_size": 1,
                },
            },
            "3": {"class_type": "CoDiDecodeImage", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
            "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
        }

    with pytest.raises(ExecutionFailed, match="width: 72 pixels"):
        host.run(prompt(72))
    assert host.run(prompt(32))["4"]["images"]
