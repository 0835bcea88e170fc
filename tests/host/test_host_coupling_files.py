"""Couplers that are trained, saved, loaded and taken from a model."""

import copy
import json
import re
import shutil

import pytest
import torch
from host import core_models as core
from host.coupled_runs import Case, nested, together
from host.test_host_bad_input import REMEDY

SETTINGS = {"steps": [60], "batch_size": [64], "learning_rate": [3e-3], "seed": [0]}
MODALITIES = ("text", "image", "video", "audio")
NAMES = {"first_name": ["picture"], "second_name": ["sound"]}


def pairs(count=400, seed=0):
    """Latents of two spaces that have a direction in common; as a list and as one batch."""
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(count, 6, generator=generator)
    first = (content @ torch.randn(6, 4 * 16, generator=generator)).reshape(count, 4, 4, 4) * 2 + 1
    second = (content @ torch.randn(6, 8 * 8, generator=generator)).reshape(count, 8, 8)
    return [{"samples": z} for z in first.split(1)], [{"samples": second}]


@pytest.fixture
def train(run_node):
    def call(first, second, **options):
        return run_node("CoDiTrainCoupler", first_latents=first, second_latents=second, **NAMES | SETTINGS | options)

    return call


@pytest.fixture(scope="module")
def trained(host):
    first, second = pairs()
    with torch.inference_mode():
        node = host.node("CoDiTrainCoupler")
        return node.execute(first_latents=first, second_latents=second, **NAMES | SETTINGS).args


def test_training_finds_partners(trained):
    coupler, losses, text = trained
    lines = text.splitlines()
    assert lines[0] == "right partner found among 64 held-out pairs" and lines[-1] == "chance: 1.6%"
    found = [float(line.split(": ")[1].rstrip("%")) for line in lines[1:-1]]
    assert found[0] > 70 > 30 > found[-1]
    assert losses.shape == (1, 360, 640, 3) and losses.dtype == torch.float32 and losses.min() < 0.5 < losses.mean()
    assert [(space.name, space.axes) for space in coupler.coupler.spaces] == [("picture", "HW"), ("sound", "T")]
    assert coupler.record["pairs"] == 400 and coupler.record["retrieval"][0]["accuracy"] == pytest.approx(
        found[0] / 100, abs=1e-3
    )


def test_training_is_the_same_again(train):
    first, second = pairs()
    as_list, again = train(first, second, steps=[3]), [{"samples": torch.cat([one["samples"] for one in first])}]
    as_batch, other = train(again, second, steps=[3]), train(first, second, steps=[3], seed=[1])
    parameters = [list(outputs[0].coupler.parameters()) for outputs in (as_list, as_batch, other)]
    assert all(torch.equal(a, b) for a, b in zip(*parameters[:2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parameters[0], parameters[2], strict=True))
    assert not any(p.requires_grad or p.is_inference() for p in parameters[0])
    assert as_list[2] == as_batch[2] != other[2]


def test_axes_of_sounds_with_frequencies(train):
    first = [{"samples": torch.randn(20, 8, 8, 4)}]
    coupler, _, text = train(first, pairs(20)[1], steps=[2], first_axes=["FT"])
    assert coupler.coupler.spaces[0].axes == "FT" and "held-out" in text
    assert "Too few pairs" in train([{"samples": torch.randn(16, 8, 8, 4)}], pairs(16)[1], steps=[1])[2]


def test_training_can_be_cancelled(train, monkeypatch):
    import comfy.model_management as mm
    import comfy.utils

    class Bar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, done, total):
            seen.append((done, total))
            if done == 3:
                mm.interrupt_current_processing()

    seen = []
    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    with pytest.raises(mm.InterruptProcessingException):
        train(*pairs())
    assert seen == [(1, 60), (2, 60), (3, 60)]


@pytest.mark.parametrize("folder", ["models/codi_couplers", "output"])
def test_saving_and_loading(host, run_node, trained, folder):
    coupler = trained[0]
    with torch.inference_mode():
        outcome = host.node("CoDiSaveCoupler").execute(coupler=coupler, filename_prefix="mine/pair", folder=folder)
    (saved,) = outcome.ui["couplers"]
    assert (saved["subfolder"], saved["type"]) == ("mine", folder) and saved["filename"].startswith("pair_")
    root = host.models.parent / "codi_couplers" if folder != "output" else host.output
    path = root / "mine" / saved["filename"]
    if folder == "output":
        shutil.copy(path, host.models.parent / "codi_couplers" / "copied.safetensors")
        choice = "copied.safetensors"
    else:
        choice = f"mine/{saved['filename']}"
    choices = host.module("nodes.runtime.coupler_files").coupler_choices()
    assert choices[0] == "mini (built in)" and choice in choices
    (loaded,) = run_node("CoDiLoadCoupler", coupler=choice)
    assert loaded.record == json.loads(json.dumps(coupler.record)) and loaded.coupler.spaces == coupler.coupler.spaces
    latents = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 20)]
    corrections = host.module("codi_backend.sampling.coupling").corrections
    with torch.inference_mode():
        expected, found = (corrections(one.coupler, [0, 1], latents, [1.0, 1.0], 3.0) for one in (coupler, loaded))
    for one, other in zip(expected, found):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, atol=0.02 * float(one.abs().max()), rtol=0)
    node = host.node("CoDiLoadCoupler")
    before = node.fingerprint_inputs(coupler=choice)
    file = host.models.parent / "codi_couplers" / choice
    file.write_bytes(file.read_bytes() + b" ")
    assert node.fingerprint_inputs(coupler=choice) != before


def test_the_built_in_coupler_is_of_the_small_models_latents(host, run_node):
    choice = host.module("nodes.runtime.coupler_files").BUILT_IN
    if not host.module("codi_backend.presets.mini").COUPLER.is_file():
        with pytest.raises(ValueError, match=r"^coupler: there is no 'mini \(built in\)'"):
            run_node("CoDiLoadCoupler", coupler=choice)
        pytest.skip("no built-in coupler in this checkout")
    (loaded,) = run_node("CoDiLoadCoupler", coupler=choice)
    shapes = host.module("codi_backend.modalities").latent_shape
    config = host.node("CoDiLoadModel").execute(checkpoint=choice).args[0].model.codi_config
    loaded.match([(1, *shapes(config, name)) for name in ("image", "audio")])


def test_files_that_are_no_couplers(host, run_node):
    folder = host.models.parent / "codi_couplers"
    folder.mkdir(exist_ok=True)
    (folder / "broken.safetensors").write_bytes(b"nothing")
    shutil.copy(host.models / "tiny.safetensors", folder / "model.safetensors")
    for choice in ("broken.safetensors", "model.safetensors", "gone.safetensors"):
        with pytest.raises(ValueError, match="^coupler: ") as error:
            run_node("CoDiLoadCoupler", coupler=choice)
        assert str(error.value).endswith("."), error.value


def test_what_cannot_be_saved(host, run_node, trained, tiny):
    (own,) = run_node("CoDiCouplerFromModel", model=tiny[0])
    for change, name in (
        ({"coupler": own}, "coupler"),
        ({"coupler": None}, "coupler"),
        ({"filename_prefix": " "}, "filename_prefix"),
        ({"filename_prefix": "../../evil"}, "filename_prefix"),
        ({"folder": "elsewhere"}, "folder"),
    ):
        given = {"coupler": trained[0], "filename_prefix": "pair", "folder": "output"} | change
        with pytest.raises(ValueError, match=f"^{name}: ") as error:
            run_node("CoDiSaveCoupler", **given)
        assert re.search(REMEDY, str(error.value)), error.value


def test_a_models_environment_encoders_are_a_coupler(host, run_node, couple, tiny, prompts, empty):
    """In a run, of two MODELs with one stream each, the correction is the library's."""
    (coupler,) = run_node("CoDiCouplerFromModel", model=tiny[0])
    assert [space.name for space in coupler.coupler.spaces] == list(MODALITIES)
    parameters = list(coupler.coupler.parameters())
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 and not p.is_inference() for p in parameters)
    network = tiny[0].model.diffusion_model
    assert sum(p.numel() for p in parameters) < sum(p.numel() for p in network.parameters()) / 2
    assert not {p.data_ptr() for p in parameters} & {p.data_ptr() for p in network.parameters()}
    streams = [empty(image=False)["samples"], empty(audio=False)["samples"]]
    noise = [torch.randn(z.shape, generator=torch.Generator().manual_seed(i)) for i, z in enumerate(streams)]
    positive, negative = prompts
    guiders = [run_node("CFGGuider", model=tiny[0], positive=positive, negative=negative, cfg=2.0)[0] for _ in range(2)]
    case = Case(("audio", "image"), guiders, noise, streams)
    sigmas = torch.tensor([2.0, 0.0])
    plain = together(couple(case), case, sigmas)
    results = together(couple(case, coupler=coupler, weight=3.0), case, sigmas)
    modalities = host.module("codi_backend.modalities")
    scales = [modalities.scale_factor(tiny[0].model.codi_config, name) for name in case.names]
    noisy = [z + 2.0 / scale * n for z, n, scale in zip(streams, noise, scales)]
    corrections = host.module("codi_backend.sampling.coupling").corrections
    library = host.module("codi_backend.models.coupler").Coupler
    with torch.inference_mode(False):  # the tensors of the MODEL were made in inference mode
        diffuser = copy.deepcopy(network.diffuser)
        factors = {name: modalities.scale_factor(tiny[0].model.codi_config, name) for name in MODALITIES}
        reference = library.from_codi(diffuser, factors)
        wanted = corrections(reference, [3, 1], noisy, [2.0 / scale for scale in scales], 3.0)
    for before, after, correction in zip(plain, results, wanted):
        assert correction.abs().max() > 1e-3
        torch.testing.assert_close(after - before, correction, atol=2e-4, rtol=1e-3)


def test_patches_of_a_model_do_not_change_its_coupler(run_node, tiny, sample, empty):
    """Whether they are applied at the time or not."""
    import comfy.sd

    weights = tiny[0].model.state_dict()
    key = next(k for k in weights if "environment_encoder" in k and k.endswith(".weight") and weights[k].ndim == 2)
    name, (height, width) = key.removesuffix(".weight"), weights[key].shape
    lora = {f"{name}.lora_A.weight": torch.ones(1, width), f"{name}.lora_B.weight": torch.ones(height, 1)}
    (before,) = run_node("CoDiCouplerFromModel", model=tiny[0])
    patched, _ = comfy.sd.load_lora_for_models(tiny[0], None, lora, 1.0, 0)
    assert len(patched.patches) == 1
    sample(empty(), patched, steps=1)
    assert not torch.equal(tiny[0].model.state_dict()[key], patched.backup[key].weight)
    for model in (patched, tiny[0]):
        (after,) = run_node("CoDiCouplerFromModel", model=model)
        for one, other in zip(before.coupler.parameters(), after.coupler.parameters(), strict=True):
            assert torch.equal(one, other)
    sample(empty(), steps=1)


def test_models_without_environment_encoders(run_node, versatile):
    for model, sentence in ((versatile[0], "has no environment encoders"), (core.build("sd15"), "is not a CoDi model")):
        with pytest.raises(ValueError, match=f"^model: .*{sentence}"):
            run_node("CoDiCouplerFromModel", model=model)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"steps": [0]}, "steps"),
        ({"batch_size": [1]}, "batch_size"),
        ({"learning_rate": [float("nan")]}, "learning_rate"),
        ({"seed": [-1]}, "seed"),
        ({"first_name": [""]}, "first_name"),
        ({"second_name": ["picture "]}, "second_name"),
        ({"first_axes": ["THW"]}, "first_axes"),
        ({"second_axes": ["HW"]}, "second_axes"),
        ({"first_latents": pairs(150)[0]}, "second_latents"),
        ({"first_latents": pairs(9)[0], "second_latents": pairs(9)[1]}, "first_latents"),
        ({"first_latents": [{"samples": torch.full((400, 4, 4, 4), float("nan"))}]}, "first_latents"),
        ({"first_latents": [{"samples": torch.ones(200, 4, 8, width)} for width in (8, 6)]}, "first_latents"),
        ({"first_latents": [{}]}, "first_latents"),
    ],
)  # fmt: skip
def test_mistakes_in_training(train, change, name):
    first, second = pairs()
    first, second = change.get("first_latents", first), change.get("second_latents", second)
    options = {key: value for key, value in change.items() if not key.endswith("latents")}
    with pytest.raises(ValueError, match=f"^{name}: ") as error:
        train(first, second, **options)
    assert re.search(REMEDY, str(error.value)) and str(error.value).endswith("."), error.value


def test_joint_latents_are_not_trained_on(train):
    joint = [{"samples": nested([torch.zeros(400, 4, 8, 8), torch.zeros(400, 8, 20)])}]
    with pytest.raises(ValueError, match="^first_latents: a joint latent has several streams; connect"):
        train(joint, pairs()[1])


def test_in_a_graph(host):
    """Latents as lists and as a batch, as the browser asks for them; then a run with what was trained."""
    from host.graph import Give, Graph, Kept, register

    register(host._nodes.NODE_CLASS_MAPPINGS)
    first, second = pairs(40)
    Give.values |= {"first": {"samples": torch.cat([z["samples"] for z in first])}, "second": second[0]}
    graph = Graph()
    given = {
        "first_latents": graph.add("TestGive", name="first"),
        "second_latents": graph.add("TestGive", name="second"),
    }
    settings = {key: value[0] for key, value in (NAMES | SETTINGS).items()} | {"steps": 2}
    axes = {"first_axes": "auto", "second_axes": "auto"}
    trained = graph.add("CoDiTrainCoupler", **given, **settings, **axes)
    graph.keep("coupler", trained)
    graph.add("CoDiSaveCoupler", coupler=trained, filename_prefix="graph", folder="output")
    graph.add("PreviewImage", images=trained[1])
    graph.keep("text", trained[2])
    outputs = host.run(graph.prompt)
    assert Kept.values["text"][0].startswith("right partner found among 8")
    assert any("couplers" in output for output in outputs.values()) and any("images" in o for o in outputs.values())
    assert list((host.output).glob("graph_*.safetensors"))
    Kept.values.clear()
    Give.values.clear()
    host.forget()
