"""What a user sees: templates that open and run, help pages, translated names."""

import re
from itertools import combinations

import pytest
from host.blueprint_files import blueprint_names
from host.comfy_host import PACK, PACK_NAME
from host.workflow_files import read_graph, workflow_names

TEMPLATES = workflow_names()
HELP = PACK / "nodes" / "web" / "docs"
OTHER_MODELS = "Couple Stable Diffusion 1.5 and Stable Audio"  # the editor marks its loaders, whose files the user has
LOADERS = {"CheckpointLoaderSimple", "CLIPLoader", "CoDiLoadCoupler"}
# The inputs and the number of results in App Mode, which has no place for texts.
APPS = {
    "Text to image, video, sound and text": (["prompt", "seed", "steps", "cfg", "alignment strength"], 3),
    "Mix of two images and a text": (
        [f"{what} of prompt {i}" for i in (1, 2) for what in ("colour", "shape")]
        + ["text of prompt 3", "weight_1", "weight_2", "weight_3", "method", "seed"],
        4,
    ),
    "Image and sound to video with sound": (
        ["colour", "shape", "count", "video attends to audio", "audio attends to video", "noise_seed"],
        1,
    ),
}
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# What ComfyUI's own Chinese texts leave as it is.
UNTRANSLATED = {"CFG", "Latent", "VAE"}


@pytest.fixture
def editor(page, request):
    """The editor; the test fails if it logs an error, and a failed test leaves nothing to the next one."""
    failed = request.session.testsfailed
    page.complaints.clear()
    yield page
    complaints = page.complaints[:]
    if complaints or request.session.testsfailed > failed:
        page.start_over()
    assert complaints == []


@pytest.fixture(scope="module")
def kinds(server):
    """Our nodes as the server describes them."""
    info = server.get("/object_info")
    return {name: node for name, node in info.items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"}


def overlapping(nodes: list[dict]) -> list[tuple[str, str]]:
    def overlap(one, other):
        return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (0, 1))

    return [(a["title"], b["title"]) for a, b in combinations(nodes, 2) if overlap(a["box"], b["box"])]


@pytest.mark.parametrize("page", ["en"], indirect=True)
@pytest.mark.parametrize("name", TEMPLATES)
def test_template_opens_and_runs(editor, name, kinds):
    editor.open_template(PACK_NAME, name)
    if name == OTHER_MODELS and not any(node["missing"] for node in editor.nodes()):
        assert editor.queue() != "success"  # older frontends look for files when a graph is run
        editor.complaints.clear()
    nodes = editor.nodes()
    assert {node["type"] for node in nodes if node["missing"]} == (LOADERS if name == OTHER_MODELS else set())
    assert overlapping(nodes) == []
    assert len(nodes) == len(read_graph(name)["nodes"])
    if name != OTHER_MODELS and checkpoints(nodes) <= set(
        kinds["CoDiLoadModel"]["input"]["required"]["checkpoint"][1]["options"]
    ):
        assert editor.queue() == "success"
        assert overlapping(editor.nodes()) == []  # previews make nodes grow


@pytest.mark.parametrize("page", ["en"], indirect=True)
@pytest.mark.parametrize("name", APPS)
def test_app_has_its_inputs_and_results(editor, name):
    inputs, results = APPS[name]
    editor.open_template(PACK_NAME, name)
    editor.page.get_by_test_id("linear-widgets").wait_for()
    assert editor.app_inputs() == inputs
    assert editor.queue() == "success"
    editor.page.get_by_test_id("linear-history-item").nth(results - 1).wait_for(state="attached")
    assert editor.app_results() == results


@pytest.mark.parametrize("page", ["en"], indirect=True)
def test_only_the_apps_open_in_app_mode(editor):
    marked = {name for name in TEMPLATES if read_graph(name)["extra"].get("linearMode")}
    assert marked == set(APPS)
    editor.open_template(PACK_NAME, "Text to image")
    assert editor.app_inputs() == []


@pytest.mark.parametrize("page", ["en"], indirect=True)
def test_blueprints_are_in_the_library_and_run(editor):
    editor.page.evaluate("() => app.graph.clear()")
    for i, name in enumerate(blueprint_names()):  # in this order, see below
        editor.place_blueprint(name, 600 + 450 * (i % 2), 120 + 280 * (i // 2))
    nodes = editor.nodes()
    assert [node["title"] for node in nodes] == blueprint_names() and not any(node["missing"] for node in nodes)
    any_output, mix, sound, everything, film = range(5)
    others = ("CoDiLoadModel", "CoDiPromptText", "CoDiPromptText", "CoDiExampleScene")
    results = ("PreviewImage", "PreviewAudio", "SaveVideo", "SaveVideo", "SaveVideo", "PreviewAny")
    for i, kind in enumerate(others + results):
        editor.add(kind, 1500 + 400 * (i % 4), 450 * (i // 4))
    model, first, second, scene, image, audio, video, with_sound, with_film, text = range(5, 15)
    prompts = [("positive", "positive"), ("unconditional", "unconditional")]
    editor.connect(
        *((model, "prompt_encoders", one, "prompt_encoders") for one in (first, second)),
        *((one, out, mix, f"{end}_{i}") for i, one in enumerate((first, second), 1) for out, end in prompts),
        (mix, "positive", any_output, "positive"),
        (mix, "unconditional", any_output, "negative"),
        *((model, name, any_output, name) for name in ("model", "vae", "audio_vae", "text_vae")),
        (any_output, "image", image, "images"),
        (any_output, "audio", audio, "audio"),
        (everything, "video", video, "video"),
        (everything, "text", text, "source"),
        (scene, "video", sound, "video"),
        (sound, "video", with_sound, "video"),
        (scene, "audio", film, "audio"),
        (film, "video", with_film, "video"),
    )
    for node in (any_output, sound, everything, film):
        editor.set_widget(node, "steps", 2)
    for stream in ("video_stream", "text_stream"):
        editor.set_widget(any_output, stream, False)
    assert editor.queue() == "success"


def checkpoints(nodes: list[dict]) -> set[str]:
    return {value for node in nodes for name, _, value in node["widgets"] if name == "checkpoint"}


def test_help_pages_open(editor, kinds):
    for kind in kinds:
        translated = HELP / kind / f"{editor.locale}.md"
        text = (translated if translated.exists() else HELP / f"{kind}.md").read_text()
        assert len(editor.help(kind, text.splitlines()[0].removeprefix("# "))) > 40
        if editor.locale == "zh":
            assert translated.exists(), f"{kind} has no help page in Chinese"


@pytest.mark.parametrize("page", ["zh"], indirect=True)
def test_everything_is_named_in_chinese(editor, kinds):
    seen = {kind: editor.only_node(kind) for kind in kinds}
    titles = [node["title"] for node in seen.values()]
    assert [title for title in titles if not CHINESE.search(title)] == [] and len(set(titles)) == len(titles)
    left = [
        f"{kind}: {name} is shown as {shown!r}"
        for kind, node in seen.items()
        for name, shown, *_ in node["inputs"] + node["outputs"] + node["widgets"]
        # The editor itself names the inputs that appear one by one.
        if "." not in name and not CHINESE.search(shown) and shown not in UNTRANSLATED
    ]
    assert left == []
