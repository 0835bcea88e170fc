"""Loading needs hardly more memory than the weights that were asked for, however their file is made.

Run as a script in a folder, this file prints the peak memory of every case over the bytes of the weights.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from codi_backend.checkpoints import codi as published
from codi_backend.checkpoints.tensor_file import TensorFile, convert
from codi_backend.config import CoDiConfig, DiffuserConfig, UNetConfig
from codi_backend.pipeline import CoDi

CASES = {
    "fp32": ("fp32.pth", torch.float32, None),
    "fp16": ("fp16.pth", torch.float16, None),
    "fp16_as_fp32": ("fp16.pth", torch.float32, None),
    "fp32_as_fp16": ("fp32.pth", torch.float16, None),
    "safetensors_fp16_as_fp32": ("fp16.safetensors", torch.float32, None),
    "one_part": ("fp32.pth", torch.float32, "diffuser.audio"),
    "one_part_fp16_as_fp32": ("fp16.pth", torch.float32, "diffuser.audio"),
}


def network(channels):
    """About 200 MB in single precision."""
    return UNetConfig(
        in_channels=channels,
        model_channels=384,
        channel_mult=(1,),
        num_res_blocks=(1,),
        attention=(True,),
        connector=(True,),
        environment_mult=(1,),
        environment_res_blocks=(1,),
    )


CONFIG = CoDiConfig(
    diffuser=DiffuserConfig(networks={"image": network(4), "audio": network(8)}, middle_as_first_skip=True)
)


def write():
    with torch.device("meta"):
        shapes = CoDi(CONFIG).to_reference_state_dict()
    state = {key: torch.full(value.shape, 0.5) for key, value in shapes.items()}
    torch.save(state, "fp32.pth")
    state = {key: value.half() for key, value in state.items()}
    torch.save(state, "fp16.pth")
    save_file(state, "fp16.safetensors")


def measure(path, dtype, part):
    import resource  # which Windows lacks

    with torch.device("meta"):
        CoDi(CONFIG)  # for the pages of torch's libraries, which a fork begins without
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codi = CoDi.load(path, dtype=dtype, only=part and [part])
    for parameter in codi.parameters():
        assert parameter.dtype == dtype and parameter.sum() > 0  # which reads what was only mapped so far
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return 1024 * peak / sum(parameter.nbytes for parameter in codi.parameters())


def in_child(function, *arguments):
    """Call in a fork: its peak counts from the fork on, that of a new program from its parent's."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(function(*arguments)))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{function.__name__}{arguments} failed")
    return queue.get()


def main():
    published.CONFIG, published.configure.__defaults__ = CONFIG, (CONFIG,)
    in_child(write)
    print(json.dumps({name: in_child(measure, *case) for name, case in CASES.items()}))


@pytest.fixture(scope="module")
def ratios():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as folder:  # pytest would keep the files of three runs
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted otherwise elsewhere")
@pytest.mark.parametrize("case", CASES)
def test_peak_memory(ratios, case):
    assert 0.95 < ratios[case] < 1.15


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "file.safetensors"])
def test_views_of_a_file_are_converted(tmp_path, name):
    tensors = {"wide": torch.randn(30, 20), "kernel": torch.randn(4, 3, 1, 1), "count": torch.tensor([70000])}
    if name == "file.safetensors":
        save_file(tensors, tmp_path / name)
    else:
        tensors |= {"tied": tensors["wide"], "rows": tensors["wide"][3:7]}
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=name == "new.pth")
    file = TensorFile(tmp_path / name)
    state = {key: file[key] for key in tensors} | {"turned": file["wide"].T, "flat": file["kernel"].flatten(1)}
    state["part"] = state["wide"][1:3, ::2]
    expected = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    convert(state, torch.float16)
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert state[key].dtype == value.dtype and torch.equal(state[key], value), key


if __name__ == "__main__":
    main()
