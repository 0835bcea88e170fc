"""ComfyUI still has what the nodes rely on: one test for each name, override, field and key.

These tests import ComfyUI but not the pack. So they name what a new version changed where the pack does not load.
"""

import pytest
from host import contract
from host.comfy_host import boot
from host.contract import CALLED_BY_HOST, CALLS_OF_OBJECTS, FIELDS, KEYS, OVERRIDES, STAND_INS, Drift
from host.pack_references import Call, calls_ending, function_of, read_pack

USES, METHODS = read_pack()


@pytest.fixture(autouse=True)
def booted(comfyui):
    boot(comfyui)


def rows(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(owner, name) for owner, names in table.items() for name in names]


@pytest.mark.parametrize("name", USES)
def test_name_exists_and_takes_our_calls(name):
    try:
        contract.find(name)
        for call in USES[name].calls:
            contract.check_call(name, call)
    except Drift as drift:
        raise Drift(f"{drift}; used at {', '.join(sorted(set(USES[name].places)))}") from None


@pytest.mark.parametrize("function, original", CALLS_OF_OBJECTS.items())
def test_method_takes_our_calls(function, original):
    calls = calls_ending(function)
    assert calls, f"nodes/ calls no {function}; correct CALLS_OF_OBJECTS in tests/host/contract.py"
    for call in calls:
        contract.check_call(original, call)


@pytest.mark.parametrize("base, name", rows(OVERRIDES))
def test_overridden_method_exists(base, name):
    assert callable(contract.find(f"{base}.{name}"))


# A node has parameters of its own, and the method of Sampler has none.
OWN_PARAMETERS = ("comfy_api.latest.io.ComfyNode", "comfy.samplers.Sampler")
OVERRIDING = [m for m in METHODS if m.name in OVERRIDES.get(m.base, ()) and m.base not in OWN_PARAMETERS]


@pytest.mark.parametrize("method", OVERRIDING, ids=lambda method: f"{method.base}.{method.name}")
def test_override_takes_what_the_original_takes(method):
    contract.check_stand_in(f"{method.base}.{method.name}", method.signature, method.place)


@pytest.mark.parametrize("file, name, original", STAND_INS)
def test_stand_in_takes_what_the_original_takes(file, name, original):
    contract.check_stand_in(original, function_of(file, name), f"nodes/{file} {name}")


@pytest.mark.parametrize("where, called, file, name", CALLED_BY_HOST)
def test_host_calls_ours(where, called, file, name):
    contract.check_called(where, called, function_of(file, name), f"nodes/{file} {name}")


@pytest.mark.parametrize("owner, name", rows(FIELDS))
def test_field_exists(owner, name):
    contract.find(f"{owner}.{name}")


@pytest.mark.parametrize("where, key", rows(KEYS))
def test_key_is_known(where, key):
    contract.check_key(where, key)


def test_everything_overridden_is_in_the_table():
    """A method of a subclass that ComfyUI's class has too is an override."""
    missing = [
        f"{method.base}.{method.name} ({method.place})"
        for method in METHODS
        if method.name not in OVERRIDES.get(method.base, ()) and hasattr(contract.find(method.base), method.name)
    ]
    assert missing == [], "add these to OVERRIDES in tests/host/contract.py"


def test_source_is_read_whole():
    """The reader finds each kind of use, so that the tests above cannot pass for want of any."""
    assert {
        "comfy.utils.pack_latents",  # import comfy.utils
        "comfy.model_management.load_models_gpu",  # import comfy.model_management as mm
        "comfy.nested_tensor.NestedTensor",  # from ... import
        "nodes.common_ksampler",  # a module that is called otherwise here
        "comfy.samplers.KSampler.sigmas",  # a field of an object
        "comfy.samplers.CFGGuider.sample",  # super()
        "server.PromptServer.instance.send_progress_text",
    } <= USES.keys()
    assert all(USES[name].calls for name in ("comfy.utils.pack_latents", "comfy.samplers.CFGGuider.sample"))
    assert {method.base for method in METHODS} >= OVERRIDES.keys()


# What a new ComfyUI may do to us, and the sentence that the tests above say about it.
def test_missing_name_is_a_drift(monkeypatch):
    monkeypatch.delattr(contract.find("comfy.utils"), "pack_latents")
    with pytest.raises(Drift, match="comfy.utils has no pack_latents"):
        contract.find("comfy.utils.pack_latents")


def test_missing_module_is_a_drift():
    with pytest.raises(Drift, match="comfy has no packing"):
        contract.find("comfy.packing.pack_latents")
    with pytest.raises(Drift, match="no module comfy_nothing"):
        contract.find("comfy_nothing.pack_latents")


def test_missing_field_is_a_drift():
    with pytest.raises(Drift, match="comfy.samplers.CFGGuider has no conditionings"):
        contract.find("comfy.samplers.CFGGuider.conditionings")
    assert contract.find("comfy.samplers.CFGGuider.conds") is None  # set during sampling only


@pytest.mark.parametrize(
    "call, reason",
    [
        (Call(1, ("shapes",), True, "here"), "unexpected keyword argument 'shapes'"),
        (Call(0, (), True, "here"), "missing a required argument"),
        (Call(3, (), False, "here"), "too many positional arguments"),
    ],
)
def test_call_that_does_not_fit_is_a_drift(call, reason):
    contract.check_call("comfy.utils.pack_latents", Call(1, (), True, "here"))
    with pytest.raises(Drift, match=reason):
        contract.check_call("comfy.utils.pack_latents", call)


def test_new_parameter_of_an_original_is_a_drift(monkeypatch):
    ours = function_of("runtime/coupled_guider.py", "CoupledGuider.sample")
    guider = contract.find("comfy.samplers.CFGGuider")

    def renamed(self, noise, latent, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None):
        pass

    def longer(self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, audio=None):
        pass

    for changed, sentence in ((renamed, "takes latent, but"), (longer, "takes audio, but")):
        monkeypatch.setattr(guider, "sample", changed)
        with pytest.raises(Drift, match=sentence):
            contract.check_stand_in("comfy.samplers.CFGGuider.sample", ours, "here")


def test_other_call_of_ours_is_a_drift():
    draw = function_of("runtime/previews.py", "Previews.draw")
    forward = function_of("runtime/coupled_denoiser.py", "JointDenoiser.__call__")
    with pytest.raises(Drift, match="does not call"):
        contract.check_called("latent_preview.Latent2RGBPreviewer", "self.reshape", draw, "here")
    with pytest.raises(Drift, match="does not take it"):
        contract.check_called("comfy.model_base.BaseModel._apply_model", "self.diffusion_model", forward, "here")


def test_missing_key_is_a_drift():
    with pytest.raises(Drift, match="does not know the key guidance_function"):
        contract.check_key("comfy.samplers.cfg_function", "guidance_function")
