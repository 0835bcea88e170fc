"""State dicts in what training programs write around them."""

import itertools

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

from codi_backend.checkpoints.native import read_parts
from codi_backend.checkpoints.state_dict import find_state_dict, plain_names
from codi_backend.checkpoints.tensor_file import TensorFile

A, B = {"x.weight": torch.ones(2)}, {"x.weight": torch.zeros(2)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}


@pytest.mark.parametrize(
    "content",
    [
        A,
        {"state_dict": A},
        {"model": A},
        {"module": A},
        {"net": A},
        {"model_state_dict": A},
        {"ema": A},
        {"params_ema": A},
        {"state_dict": {"model": A}},
        {"model": {"module": {"state_dict": A}}},
        {"model": A, "optimizer": OPTIMIZER, "step": torch.tensor(7), "epoch": 3},
        {"state_dict": A, "model": "unet", "optimizer_states": [OPTIMIZER]},
        {"model": A, "ema": {"decay": 0.99, "shadow_params": [torch.zeros(2)]}},
        {"model": A, "ema": None, "lr_schedulers": [], 3: torch.ones(1)},
    ],
)
def test_wrappers_are_opened(content, recwarn):
    found = find_state_dict(content, "a.pth")
    assert found.keys() == A.keys() and torch.equal(found["x.weight"], A["x.weight"])
    assert not recwarn


@pytest.mark.parametrize(
    ("model", "average"), itertools.product(["model", "state_dict"], ["ema", "model_ema", "params_ema"])
)
def test_of_weights_and_their_average_the_average_is_taken_and_reported(model, average):
    with pytest.warns(UserWarning, match=f"^a.pth holds weights under '{model}' and their average under '{average}'"):
        found = find_state_dict({model: A, average: B}, "a.pth")
    assert torch.equal(found["x.weight"], B["x.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": A, "net": B}, "holds several state dicts, 'model' and 'net': save only the one to load"),
        ({"ema": A, "model_ema": B}, "holds several state dicts, 'ema' and 'model_ema'"),
        ({"model": A, "y.weight": torch.ones(2)}, "holds tensors by name .y.weight. and under 'model' too"),
        ({"optimizer": OPTIMIZER}, "holds no tensors by name, and none under the usual entries .it has optimizer."),
    ],
)
def test_what_cannot_be_decided_is_reported(content, message):
    with pytest.raises(ValueError, match=f"^a.pth {message}"):
        find_state_dict(content, "a.pth")


def known(keys):
    return any(key.startswith("diffuser.") for key in keys)


@pytest.mark.parametrize(
    "prefixes", [*itertools.permutations(["module.", "_orig_mod.", "model."], 2), ("net.", "module.")]
)
def test_prefixes_go_if_all_names_have_them(prefixes):
    names = ["diffuser.image.a", "diffuser.image.b"]
    keys = ["".join(prefixes) + name for name in names]
    assert plain_names(["n_averaged", *keys], known, "a.pth") == {"n_averaged": "n_averaged", **dict(zip(names, keys))}


def test_prefixes_of_some_names_stay():
    assert list(plain_names(["module.diffuser.a", "diffuser.b"], known, "a.pth")) == ["module.diffuser.a", "diffuser.b"]
    assert list(plain_names(["diffuser._orig_mod.a", "diffuser.b"], known, "a.pth")) == ["diffuser.a", "diffuser.b"]


def test_names_that_are_known_keep_what_looks_like_a_prefix(tmp_path):
    names = ["model.diffusion_model.unet_audio.time_embed.0.bias"]
    assert list(plain_names(names, lambda keys: any(key in names for key in keys), "a.pth")) == names


def test_two_tensors_of_one_name():
    with pytest.raises(ValueError, match="^a.pth holds x.y twice, as x.y too|^a.pth holds x.y twice"):
        plain_names(["_orig_mod.x.y", "x.y"], known, "a.pth")


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {"model": {"module": s}}], ids=["one", "two"])
def test_a_wrapped_model_in_parallel_reads_as_itself(tmp_path, codi, wrap):
    """As DataParallel and AveragedModel save, with names of ours and the configuration in safetensors."""
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(codi.prompt_encoders["text"]))
    state = {
        key.replace("module.module.", "module.prompt_encoders.text."): v for key, v in averaged.state_dict().items()
    }
    assert "n_averaged" in state
    torch.save(wrap(state), tmp_path / "a.pth")
    file = TensorFile(tmp_path / "a.pth", lambda keys: any(key.startswith("prompt_encoders.") for key in keys))
    expected = codi.prompt_encoders["text"].state_dict()
    assert not tiny.changed(expected, {key: file[f"prompt_encoders.text.{key}"] for key in expected})
    del state["n_averaged"]
    save_file(state, tmp_path / "a.safetensors", {"codi_config": codi.config.to_json()})
    assert not tiny.changed(expected, read_parts(tmp_path / "a.safetensors").parts["prompt_encoders.text"])
