"""The shipped workflows, from the files as shipped: they run, give what they promise, and can be read by a person."""

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from host.published_files import save_published
from host.workflow_files import NOT_EXECUTED, WORKFLOWS, api_form, read_graph, workflow_names
from PIL import Image

NAMES = workflow_names()
JOINT, PUBLISHED = "Text to image and sound", "Published CoDi weights in little VRAM"
LONG, LONG_FRAMES = "Long video with sound", 32
OTHER_MODELS = "Couple Stable Diffusion 1.5 and Stable Audio"  # needs checkpoints that are not of this pack
# How many results of each kind a workflow saves or shows.
RESULTS = {
    "Couple two models": {"image": 1, "audio": 1},
    "Best of four candidates": {"image": 1, "audio": 1, "text": 1},
    "Image and sound to video with sound": {"video": 1},
    "Image to text": {"text": 4},
    "Variations of an image": {"image": 4},
    LONG: {"video": 1},
    PUBLISHED: {"image": 1, "audio": 1},
    "Sound to image": {"image": 1},
    "Video for a given sound": {"video": 1},
    "Text to image, video, sound and text": {"image": 1, "video": 1, "audio": 1, "text": 1},
    "Text to image": {"image": 1},
    JOINT: {"image": 1, "audio": 1},
    "Text to drawing and sound": {"image": 1, "audio": 1},
    "Variations of a text": {"text": 4},
    "Mix of two images and a text": {"image": 4},
    "Versatile Diffusion, text and image together": {"image": 4},
    "Versatile Diffusion, edit an image by its description": {"image": 4, "text": 1},
    "Versatile Diffusion, content or style of an image": {"image": 5},
    "Versatile Diffusion, image to text": {"text": 4},
    "Versatile Diffusion, variations of an image": {"image": 5},
    "Versatile Diffusion, parts of several images": {"image": 4},
    "Versatile Diffusion, text to image": {"image": 4},
    "Versatile Diffusion, variations of a text": {"text": 4},
    "Sound for a given video": {"video": 1, "audio": 1},
}
KINDS = {"SaveImage": "image", "SaveVideo": "video", "SaveAudioAdvanced": "audio", "PreviewAny": "text"}
TITLE = 30  # height of a node's title bar, which lies above its position


@dataclass
class Results:
    """What a run saved and showed."""

    image: list[np.ndarray]  # [H, W, 3] bytes
    video: list[tuple[list[np.ndarray], np.ndarray]]  # frames, and [C, N] samples of the audio
    audio: list[tuple[np.ndarray, int]]  # [C, N] samples, Hz
    text: list[str]

    def count(self) -> dict[str, int]:
        return {kind: len(found) for kind, found in vars(self).items() if found}


def with_settings(prompt: dict, **settings) -> dict:
    """Set every input of these names that has a value; a number of steps is only ever lowered."""
    for node in prompt.values():
        for name, value in settings.items():
            if name in node["inputs"] and node["class_type"] != "CoDiExampleScene":
                node["inputs"][name] = min(value, node["inputs"][name]) if name == "steps" else value
    return prompt


def results(prompt: dict, outputs: dict, read) -> Results:
    """`read` gets the entry of a file and returns its bytes."""
    import av  # comes with ComfyUI

    def frames(file, kind):
        with av.open(BytesIO(file)) as container:
            return [
                frame.to_ndarray(**{"format": "rgb24"} if kind == "video" else {})
                for frame in container.decode(**{kind: 0})
            ]

    found = Results([], [], [], [])
    for node, output in outputs.items():
        match KINDS.get(prompt[node]["class_type"]):
            case "image":
                found.image += [np.asarray(Image.open(BytesIO(read(entry)))) for entry in output["images"]]
            case "video":
                files = [read(entry) for entry in output["images"]]
                found.video += [(frames(f, "video"), np.concatenate(frames(f, "audio"), axis=1)) for f in files]
            case "audio":
                for entry in output["audio"]:
                    with av.open(BytesIO(file := read(entry))) as container:
                        rate = container.streams.audio[0].rate
                    found.audio.append((np.concatenate(frames(file, "audio"), axis=1), rate))
            case "text":
                found.text += output["text"]
    return found


@pytest.fixture
def run(host):
    """Execute a prompt with nothing cached."""

    def call(prompt: dict) -> Results:
        host.forget()
        outputs = host.run(prompt)
        return results(prompt, outputs, lambda file: (host.output / file["subfolder"] / file["filename"]).read_bytes())

    return call


def check(found: Results, side: int = 64, length: int = 16) -> None:
    for pixels in found.image:
        assert pixels.shape == (side, side, 3) and pixels.std() > 1
    for frames, audio in found.video:
        assert len(frames) == length and {frame.shape for frame in frames} == {(64, 64, 3)}
        assert np.std(frames) > 1 and np.abs(audio).max() > 0
    for samples, rate in found.audio:
        assert samples.shape[1] >= 2.5 * rate and rate == 16000 and np.abs(samples).max() > 0
    assert all(isinstance(text, str) for text in found.text)


@pytest.mark.parametrize("name", sorted({*NAMES} - {OTHER_MODELS}))
def test_every_workflow_gives_what_it_promises(host, run, monkeypatch, request, name):
    prompt, side = with_settings(api_form(name), steps=2), 64
    if name == PUBLISHED:
        side, folder = 128, host.models / "CoDi"
        save_published(host, monkeypatch, folder)
        with_settings(prompt, width=side, height=side, tile_size=side // 2, seconds=2.56)
        request.addfinalizer(lambda: shutil.rmtree(folder))
    found = run(prompt)
    assert found.count() == RESULTS[name]
    check(found, side, LONG_FRAMES if name == LONG else 16)


def test_a_workflow_for_other_models_lacks_their_files_only(host):
    """Every node and link is what ComfyUI takes; the loaders' files are the user's."""
    import asyncio

    import execution

    valid, error, _, faults = asyncio.run(execution.validate_prompt("test", api_form(OTHER_MODELS), None))
    lacking = [(fault["type"], fault["details"].split(":")[0]) for node in faults.values() for fault in node["errors"]]
    assert not valid and error is not None
    assert {kind for kind, _ in lacking} == {"value_not_in_list"}
    assert {name for _, name in lacking} == {"ckpt_name", "clip_name", "coupler"}


def test_the_same_seed_gives_the_same_bits(run):
    def pixels_and_samples(seed):
        found = run(with_settings(api_form(JOINT), seed=seed, steps=2))
        return found.image[0], found.audio[0][0]

    first, again, other = map(pixels_and_samples, (0, 0, 1))
    assert all(map(np.array_equal, first, again)) and not any(map(np.array_equal, first, other))


def test_over_http(server):
    def read(file):
        return server.read(f"/view?filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}")

    prompt = with_settings(api_form(JOINT), steps=2)
    found = results(prompt, server.run(prompt), read)
    assert found.count() == RESULTS[JOINT]
    check(found)


@pytest.mark.parametrize(
    "name, colour, shape",
    [
        ("Sound to image", "green", "heart"),
        ("Mix of two images and a text", "red", "star"),
        ("Versatile Diffusion, text and image together", "blue", "star"),
        ("Versatile Diffusion, edit an image by its description", "blue", "circle"),
        ("Versatile Diffusion, variations of an image", "purple", "star"),
        ("Versatile Diffusion, parts of several images", "red", "heart"),
        ("Versatile Diffusion, text to image", "green", "heart"),
    ],
)
def test_images_show_what_was_asked_for(host, run, name, colour, shape):
    """At the workflow's own settings: most images, since the model is not always right."""
    judge = host.module("codi_backend.evaluation.judges").judge_image
    judged = [judge(pixels.transpose(2, 0, 1) / np.float32(255)) for pixels in run(api_form(name)).image]
    right = sum((image.colour, image.shape) == (colour, shape) for image in judged)
    assert right > len(judged) / 2


def box_of(node: dict) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - TITLE, left + width, top + height


def box_of_group(group: dict) -> tuple[float, float, float, float]:
    left, top, width, height = group["bounding"]
    return left, top, left + width, top + height


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def inside(inner, outer) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@pytest.mark.parametrize("name", NAMES)
def test_layout_can_be_read(name):
    graph = read_graph(name)
    boxes = {f"{node['id']} {node['type']}": box_of(node) for node in graph["nodes"]}
    groups = {group["title"]: box_of_group(group) for group in graph["groups"]}
    assert len(groups) == len(graph["groups"]) >= 3 and all(group["color"] for group in graph["groups"])
    notes = {key: box for key, box in boxes.items() if key.split()[1] in NOT_EXECUTED}
    for blocks in (boxes, groups | notes):
        touching = [(a, b) for (a, one), (b, other) in combinations(blocks.items(), 2) if overlap(one, other)]
        assert touching == []
    homes = {key: [title for title, group in groups.items() if inside(box, group)] for key, box in boxes.items()}
    assert [key for key, found in homes.items() if len(found) != (key not in notes)] == []
    assert {title for found in homes.values() for title in found} == set(groups), "a group is empty"


@pytest.mark.parametrize("name", NAMES)
def test_links_and_nodes_are_whole(host, name):
    graph = read_graph(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for node in nodes.values():
        if node["type"] not in NOT_EXECUTED:
            assert not getattr(host.node(node["type"]), "DEPRECATED", False), node["type"]
        if named := node.get("widgets_values_named"):
            assert list(named.values()) == node["widgets_values"], "two texts of one note"
    for link, origin, output, target, slot, _ in graph["links"]:
        assert link in nodes[origin]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == link
        assert nodes[origin]["pos"][0] <= nodes[target]["pos"][0], "links go from left to right"
    ends = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry.get("link") is not None]
    starts = [link for node in nodes.values() for entry in node["outputs"] for link in entry["links"] or []]
    known = Counter(link[0] for link in graph["links"])
    assert known == Counter(ends) == Counter(starts) and set(known.values()) <= {1}


@pytest.mark.parametrize("name", [name for name in NAMES if "linearData" in read_graph(name)["extra"]])
def test_inputs_and_outputs_of_an_app_exist(name):
    graph = read_graph(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    app = graph["extra"]["linearData"]
    assert graph["extra"]["linearMode"] and app["inputs"]
    assert [one for one in app["inputs"] if one[1] not in nodes[one[0]]["widgets_values_named"]] == []
    assert {nodes[one]["type"] for one in app["outputs"]} <= set(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_name_reads_as_a_title(name):
    # The template browser has no other title and description of a pack's templates.
    assert re.fullmatch(r"[A-Z][\w ,.]+\w", name) and "_" not in name and name.isascii()


@pytest.mark.parametrize("name", NAMES)
def test_note_and_thumbnail(name):
    (note,) = [node for node in read_graph(name)["nodes"] if node["type"] in NOT_EXECUTED]
    heading, *lines = [line for line in note["widgets_values"][0].splitlines() if line]
    assert heading.startswith("## ") and 3 <= len(lines) <= 6
    thumbnail = WORKFLOWS / f"{name}.jpg"
    assert Image.open(thumbnail).size[0] == 640 and thumbnail.stat().st_size < 60_000


def test_every_workflow_is_known():
    assert {*RESULTS, OTHER_MODELS} == set(NAMES)
