"""The table of docs/joint-latents.md about stock nodes, checked against the ComfyUI that is installed.

A failure tells that ComfyUI changed: correct the table, and drop a node of the pack that is no longer needed.
"""

import importlib
import re
from types import SimpleNamespace

import pytest
import torch
from host import core_models as core
from host.comfy_host import PACK, stand_in_for_torchaudio

# In an order in which they can be imported.
MODULES = ("post_processing", "latent", "rebatch", "mask", "custom_sampler", "audio", "lt", "lt_audio")
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (works|error|first stream|last stream|wrong) \|.*\|$")


def table() -> dict[str, str]:
    found = {}
    for line in (PACK / "docs" / "joint-latents.md").read_text(encoding="utf-8").splitlines():
        if row := ROW.match(line):
            found |= dict.fromkeys(re.findall(r"\w+", row[1]), row[2])
    return found


@pytest.fixture(scope="module")
def stock(host):
    """Classes of stock nodes by their ids."""
    with stand_in_for_torchaudio():
        modules = [importlib.import_module(f"comfy_extras.nodes_{name}") for name in MODULES]
        modules.append(importlib.import_module("comfy_extras.nodes_wan"))
    classes = dict(host._nodes.NODE_CLASS_MAPPINGS)
    for module in modules:
        for one in vars(module).values():
            if isinstance(one, type) and hasattr(one, "define_schema") and one.__module__ == module.__name__:
                classes[one.GET_SCHEMA().node_id] = one
    return classes


@pytest.fixture
def call(stock):
    """Run a stock node; its first output."""

    def run(name, **inputs):
        node = stock[name]
        with torch.inference_mode():
            if hasattr(node, "define_schema"):
                return node.execute(**inputs).args[0]
            result = getattr(node(), node.FUNCTION)(**inputs)
        return (result["result"] if isinstance(result, dict) else result)[0]

    return run


def streams(latent: dict) -> list[torch.Tensor]:
    return latent["samples"].unbind()


def parts(latent: dict) -> list[dict]:
    return [{"samples": stream} for stream in streams(latent)]


def joint(seed: int = 0) -> dict:
    return core.ltx_latent(seed, batch=2)


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Decoder:
    """Stands for any VAE: which stream a stock decoder takes is the question here."""

    first_stage_model = SimpleNamespace(output_sample_rate=16000)

    def decode(self, latent, **_):
        self.latent = latent
        return torch.zeros(2, 4, 8, 3)

    decode_tiled = decode

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return None


def decoded(call, name: str, vae: str = "vae", **inputs) -> int:
    """The number of the stream that a decoder takes."""
    latent, decoder = joint(), Decoder()
    call(name, samples=latent, **{vae: decoder}, **inputs)
    return [torch.equal(decoder.latent, stream) for stream in streams(latent)].index(True)


def per_stream(call, name: str, first: str = "samples", second: str | None = None, **inputs) -> bool:
    """Whether a node does to a joint latent what it does to each stream."""
    a, b = joint(0), joint(1)

    def given(one, other):
        return {first: one} | ({second: other} if second else {}) | inputs

    whole = call(name, **given(a, b))
    single = [call(name, **given(one, other))["samples"] for one, other in zip(parts(a), parts(b))]
    return equal(streams(whole), single)


def sampled(call, name: str) -> bool:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    latent, sampler = joint(), comfy.samplers.sampler_object("euler")
    model = core.build("ltxav")
    sigmas = core.sigmas_of(model, 1, "simple")
    conditions = {"positive": core.conditioning("ltxav"), "negative": core.conditioning("ltxav", 1)}
    stock = {"model": model, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"} | conditions
    custom = {"model": model, "add_noise": True, "noise_seed": 0, "cfg": 1.0, "sampler": sampler, "sigmas": sigmas}
    inputs = {
        "KSampler": stock | {"seed": 0},
        "KSamplerAdvanced": stock
        | {"add_noise": "enable", "noise_seed": 0, "start_at_step": 0, "end_at_step": 9}
        | {"return_with_leftover_noise": "disable"},
        "SamplerCustom": custom | conditions,
        "SamplerCustomAdvanced": {"noise": Noise_RandomNoise(0), "guider": core.guider("ltxav"), "sampler": sampler}
        | {"sigmas": sigmas},
    }[name]
    result = call(name, latent_image=latent, **inputs)
    return all(a.shape == b.shape and not torch.equal(a, b) for a, b in zip(streams(result), streams(latent)))


def masks_the_first(call) -> bool:
    from comfy.nested_tensor import NestedTensor

    masks = NestedTensor([torch.ones(1, 1, 4, 2, 3), torch.zeros(1, 1, 25, 1)])
    result = call("SetLatentNoiseMask", samples=joint() | {"noise_mask": masks}, mask=torch.zeros(1, 16, 24))
    return torch.is_tensor(result["noise_mask"])


def crops_other_axes(call) -> bool:
    return all(0 in stream.shape[2:] or stream.shape[2] < 25 for stream in streams(_cropped(call)))


def _cropped(call) -> dict:
    return call("LatentCrop", samples=joint(), width=64, height=64, x=0, y=0)


def trims_steps(call) -> bool:
    return [stream.shape[2] for stream in streams(call("TrimVideoLatent", samples=joint(), trim_amount=1))] == [3, 24]


def same_as_of_video(call, name: str, **inputs) -> bool:
    whole, video = (call(name, latent=latent, **inputs) for latent in (joint(), parts(joint())[0]))
    if torch.is_tensor(whole):
        return torch.equal(whole, video)
    return whole.get_model_object("model_sampling").shift == video.get_model_object("model_sampling").shift


def seeds_behave(call) -> bool:
    return call("LatentBatchSeedBehavior", samples=joint(), seed_behavior="fixed")["batch_index"] == [0, 0]


def joins(call) -> bool:
    latent, audio = joint(), streams(joint(1))[1]
    swapped = call("LTXVConcatAVLatent", video_latent=latent, audio_latent={"samples": audio})
    return equal(streams(swapped), [streams(latent)[0], audio])


def separates(call) -> bool:
    return torch.equal(call("LTXVSeparateAVLatent", av_latent=joint())["samples"], streams(joint())[0])


SHIFTS = {"max_shift": 2.05, "base_shift": 0.95}
CHECKS = {
    **{
        name: (lambda call, name=name: sampled(call, name))
        for name in ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
    },
    "LatentAdd": lambda call: per_stream(call, "LatentAdd", "samples1", "samples2"),
    "LatentSubtract": lambda call: per_stream(call, "LatentSubtract", "samples1", "samples2"),
    "LatentMultiply": lambda call: per_stream(call, "LatentMultiply", multiplier=0.5),
    "LatentBlend": lambda call: per_stream(call, "LatentBlend", "samples1", "samples2", blend_factor=0.3),
    "LatentBatchSeedBehavior": seeds_behave,
    "LTXVConcatAVLatent": joins,
    "LTXVSeparateAVLatent": separates,
    "ModelSamplingLTXV": lambda call: same_as_of_video(call, "ModelSamplingLTXV", model=core.build("ltxav"), **SHIFTS),
    "LTXVScheduler": lambda call: same_as_of_video(
        call, "LTXVScheduler", steps=4, stretch=True, terminal=0.1, **SHIFTS
    ),
    "VAEDecode": lambda call: decoded(call, "VAEDecode") == 0,
    "VAEDecodeTiled": lambda call: decoded(call, "VAEDecodeTiled", tile_size=512) == 0,
    "VAEDecodeAudio": lambda call: decoded(call, "VAEDecodeAudio") == 1,
    "VAEDecodeAudioTiled": lambda call: decoded(call, "VAEDecodeAudioTiled", tile_size=512, overlap=64) == 1,
    "LTXVAudioVAEDecode": lambda call: decoded(call, "LTXVAudioVAEDecode", "audio_vae") == 1,
    "SetLatentNoiseMask": masks_the_first,
    "LatentCrop": crops_other_axes,
    "TrimVideoLatent": trims_steps,
}


def _inputs(stock) -> dict[str, dict]:
    """Inputs of the nodes that the table says stop with an error."""
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    a, b, guides = joint(0), joint(1), {"positive": [], "negative": []}
    ltx = SimpleNamespace(downscale_index_formula=(8, 32, 32), encode=lambda image: torch.zeros(1, 128, 1, 2, 3))
    method, image = {"upscale_method": "bilinear"}, torch.zeros(1, 64, 96, 3)
    operation = stock["LatentOperationTonemapReinhard"].execute(multiplier=1.0).args[0]
    return {
        "SaveLatent": {"samples": a, "filename_prefix": "joint"},
        "RepeatLatentBatch": {"samples": a, "amount": 2},
        "LatentFromBatch": {"samples": a, "batch_index": 0, "length": 1},
        "RebatchLatents": {"latents": [a], "batch_size": [1]},
        "LatentBatch": {"samples1": a, "samples2": b},
        "BatchLatentsNode": {"latents": {"latent0": a, "latent1": b}},
        "BatchImagesMasksLatentsNode": {"inputs": {"input0": a, "input1": b}},
        "AddNoise": {"model": core.build("ltxav"), "noise": Noise_RandomNoise(0), "sigmas": torch.tensor([0.5, 0.0])}
        | {"latent_image": a},
        "LatentUpscale": {"samples": a, "width": 64, "height": 64, "crop": "disabled"} | method,
        "LatentUpscaleBy": {"samples": a, "scale_by": 2.0} | method,
        "LatentCut": {"samples": a, "dim": "t", "index": 0, "amount": 1},
        "LatentCutToBatch": {"samples": a, "dim": "t", "slice_size": 1},
        "LatentInterpolate": {"samples1": a, "samples2": b, "ratio": 0.5},
        "LatentRotate": {"samples": a, "rotation": "90 degrees"},
        "LatentFlip": {"samples": a, "flip_method": "x-axis: vertically"},
        "LatentComposite": {"samples_to": a, "samples_from": b, "x": 0, "y": 0},
        "LatentCompositeMasked": {"destination": a, "source": b, "x": 0, "y": 0, "resize_source": False},
        "LatentConcat": {"samples1": a, "samples2": b, "dim": "t"},
        "LatentApplyOperation": {"samples": a, "operation": operation},
        "ReplaceVideoLatentFrames": {"destination": a, "source": b, "index": 0},
        "LTXVImgToVideoInplace": {"vae": ltx, "image": image, "latent": a, "strength": 1.0},
        "LTXVAddGuide": {"vae": ltx, "image": image, "latent": a, "frame_idx": 0, "strength": 1.0} | guides,
        "LTXVCropGuides": {"latent": a} | guides,
    }


def test_the_table_is_complete(stock):
    """Of the modules with latent nodes, every node that takes a LATENT has a row."""
    found = set()
    for name, node in stock.items():
        if name.startswith(("CoDi", "Test")) or not (
            node.__module__ == "nodes" or node.__module__.removeprefix("comfy_extras.nodes_") in MODULES
        ):
            continue
        if hasattr(node, "define_schema"):
            kinds = {one.get_io_type() for entry in node.GET_SCHEMA().inputs for one in entry.get_all()}
            takes = any("LATENT" in kind.split(",") for kind in kinds)
        else:
            takes = any(one[0] == "LATENT" for group in node.INPUT_TYPES().values() for one in group.values())
        if takes:
            found.add(name)
    assert sorted(found - table().keys()) == []
    assert sorted(table().keys() - found - {"TrimVideoLatent", "BatchImagesMasksLatentsNode"}) == []


def test_nodes_that_stop(host, stock, call):
    inputs = _inputs(stock)
    assert inputs.keys() == {name for name, outcome in table().items() if outcome == "error"}
    for name, given in inputs.items():
        with pytest.raises(Exception) as error:
            call(name, **given)
            pytest.fail(f"{name} accepts a joint latent now", pytrace=False)
        # Otherwise something else is wrong.
        assert re.search("NestedTensor|not enough values to unpack", str(error.value)), f"{name}: {error.value}"


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_nodes_that_do_not_stop(call, name):
    assert table()[name] in ("works", "first stream", "last stream", "wrong")
    assert CHECKS[name](call)


def test_every_row_is_checked():
    assert CHECKS.keys() == {name for name, outcome in table().items() if outcome != "error"}
