"""The shipped workflow, from the file as shipped, on the built-in model."""

from io import BytesIO

import numpy as np
from host.workflow_files import WORKFLOWS, api_form
from PIL import Image

NAME = "text_to_image_and_sound"


def with_seed(prompt: dict, seed: int) -> dict:
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["seed"] = seed
    return prompt


def result(outputs: dict, read) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the one image and samples of the one sound; `read` gets a file's name and subfolder."""
    import av  # comes with ComfyUI

    (image,) = [entry for output in outputs.values() for entry in output.get("images", [])]
    (sound,) = [entry for output in outputs.values() for entry in output.get("audio", [])]
    pixels = np.asarray(Image.open(BytesIO(read(image))))
    with av.open(BytesIO(read(sound))) as container:
        assert container.streams.audio[0].rate == 16000
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    return pixels, samples


def check(pixels: np.ndarray, samples: np.ndarray) -> None:
    assert pixels.shape == (64, 64, 3) and pixels.std() > 1
    assert samples.shape[1] == 40960 and np.abs(samples).max() > 0


def test_in_process_the_same_seed_gives_the_same_bits(host):
    def run(seed):
        host.forget()
        outputs = host.run(with_seed(api_form(NAME), seed))
        return result(outputs, lambda file: (host.output / file["subfolder"] / file["filename"]).read_bytes())

    first, again, other = run(0), run(0), run(1)
    check(*first)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])


def test_over_http(server):
    def read(file):
        return server.read(f"/view?filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}")

    check(*result(server.run(api_form(NAME)), read))


def test_workflow_is_whole():
    prompt = api_form(NAME)
    assert {node["class_type"] for node in prompt.values()} >= {"CoDiLoadModel", "KSampler", "CoDiDecodeAudio"}
    assert (WORKFLOWS / f"{NAME}.jpg").is_file()
