"""Damaged, mutated and wrapped checkpoints end in the right tensors or in a sentence of ours."""

import io
import json
import re
import struct
import tempfile
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from codi_backend.checkpoints.files import resolve
from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import fit, read_parts
from codi_backend.checkpoints.parts import FIELDS, part_names
from codi_backend.checkpoints.pickles import damaged_record
from codi_backend.checkpoints.tensor_file import TensorFile
from codi_backend.conditioning.embedding_file import read_embedding
from codi_backend.config import CoDiConfig

pytestmark = pytest.mark.property

PART = "prompt_encoders.text"
CONFIG = CoDiConfig(name="small", text_encoder=tiny.CONFIG.text_encoder)
SENTENCE = re.compile(r"[^\n]+: [^\n]+\.|There is [^\n]+\.")
# Reasons of libraries stand in parentheses; these would be errors that nobody foresaw.
BARE = re.compile(r"Traceback|object has no attribute|unexpected keyword|positional argument")


def weights():
    torch.manual_seed(0)
    return {f"{PART}.{key}": value for key, value in tiny.build(CONFIG).prompt_encoders["text"].state_dict().items()}


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


WEIGHTS = weights()
FEW = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.full((3,), 0.5), "a.count": torch.tensor([7])}
OURS = save(WEIGHTS, {"codi_config": CONFIG.to_json(), "codi_training": "[]"})
VALID = {"zip": saved(FEW), "old": saved(FEW, _use_new_zipfile_serialization=False), "safetensors": save(FEW)}


def outcome(data, read, suffix=".pth"):
    """What a reader gives for a file, or None if it refuses with a sentence that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"bad{suffix}")
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return read(path)
        except ValueError as error:
            assert str(error).count("bad.") and SENTENCE.fullmatch(str(error)), str(error)
            assert not BARE.search(str(error)), str(error)
            return None


def tensors(path):
    file = TensorFile(path)
    return {key: file[key].clone() for key in file.keys()}


def part(path):
    return {key: value.clone() for key, value in read_parts(path).take(PART).items()}


def right(state):
    return not tiny.changed({key.removeprefix(f"{PART}."): value for key, value in WEIGHTS.items()}, state)


@given(
    st.sampled_from(sorted(VALID)), st.floats(0, 1, exclude_max=True), st.sampled_from([".pth", ".safetensors", ".sft"])
)
def test_files_that_are_cut_short(kind, share, suffix):
    data = VALID[kind]
    assert outcome(data[: int(share * len(data))], tensors, suffix) is None


@given(st.sampled_from(["zip", "safetensors"]), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_changed_bit_is_found_by_inspect_or_changes_no_name_or_shape(kind, share, bit):
    """safetensors has no check sums: of it the header alone can be looked at."""
    data = bytearray(VALID[kind])
    end = 8 + struct.unpack("<Q", data[:8])[0] if kind == "safetensors" else len(data)
    data[int(share * end)] ^= 1 << bit
    state = outcome(bytes(data), tensors)
    if state is not None and kind == "zip":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "bad.pth")
            path.write_bytes(data)
            assert damaged_record(path) or (state.keys() == FEW.keys() and not tiny.changed(FEW, state))
    elif state is not None:
        assert len(state) == len(FEW)  # a name is another, and no part fits it


@given(st.integers(0, 1 << 30), st.integers(0, 7))
def test_a_changed_bit_in_the_header_of_a_checkpoint(place, bit):
    data = bytearray(OURS)
    (length,) = struct.unpack("<Q", data[:8])
    data[place % (8 + length)] ^= 1 << bit
    state = outcome(bytes(data), part, ".safetensors")
    # Another name of a tensor is missed, another offset or shape does not fit; the rest concerns no weight.
    assert state is None or right(state)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY\x01\0", b"(", b"c", b"\0" * 8 + b"{"]),
)
def test_bytes_of_no_kind(data, head):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bad.pt").write_bytes(head + data)
        findings = inspect(Path(folder, "bad.pt"))
        assert not findings.sound and SENTENCE.fullmatch(findings.files[0].problem)
    assert outcome(head + data, read_embedding, ".pt") is None


ROWS = {key: {"dtype": "F32", "shape": list(value.shape)} for key, value in FEW.items() if key != "a.count"}
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([-1, 2**31, 2**63, 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(ROWS)), st.sampled_from(["dtype", "shape", "data_offsets", "extra"]), ANY, st.integers(0, 64)
)
def test_mutated_headers(key, name, value, surplus):
    rows, end = {}, 0
    for other, row in ROWS.items():
        size = 4 * torch.Size(row["shape"]).numel()
        rows[other] = {**row, "data_offsets": [end, end + size]}
        end += size
    rows[key][name] = value
    text = json.dumps(rows).encode()
    data = b"".join(FEW[key].numpy().tobytes() for key in ROWS) + b"\0" * surplus
    state = outcome(struct.pack("<Q", len(text)) + text + data, tensors, ".safetensors")
    if state is not None:
        expected = {other: FEW[other] for other in ROWS}
        assert state.keys() == expected.keys() and surplus == 0
        assert all(state[other].numel() == expected[other].numel() for other in expected)
        assert not tiny.changed({k: v for k, v in expected.items() if k != key}, state)


@given(st.sampled_from(sorted(ROWS)), st.integers(0, 2**64 - 1))
def test_lengths_of_headers(key, length):
    data = VALID["safetensors"]
    real = struct.unpack("<Q", data[:8])[0]
    state = outcome(struct.pack("<Q", length) + data[8:], tensors, ".safetensors")
    assert state is None or length == real


WRAPPERS = st.sampled_from(["state_dict", "model", "module", "net", "ema", "params_ema", "model_state_dict"])
PREFIXES = st.sampled_from(["module.", "_orig_mod.", "model.", "net."])
BESIDE = st.dictionaries(st.sampled_from(["epoch", "step", "args", "lr"]), st.integers(), max_size=3)


@given(st.lists(WRAPPERS, max_size=4), st.lists(PREFIXES, max_size=4), st.sampled_from(["zip", "old"]), BESIDE)
def test_wrappers_and_prefixes(wrappers, prefixes, kind, beside):
    content = {"".join(prefixes) + key: value for key, value in WEIGHTS.items()}
    for wrapper in wrappers:
        content = {**beside, "optimizer": {"state": {0: torch.ones(2)}}, wrapper: content}
    data = saved(content, _use_new_zipfile_serialization=kind == "zip")

    def read(path):
        file = TensorFile(path, lambda keys: any(key.startswith(PART) for key in keys))
        return {key.removeprefix(f"{PART}."): file[key].clone() for key in file.keys()}

    state = outcome(data, read)
    assert state is not None and right(state) and len(state) == len(WEIGHTS)


def inside(outer, wanted):
    """Whether a JSON value is another, or in it."""
    values = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
    return outer is wanted or any(inside(value, wanted) for value in values)


@given(st.data())
@example(None)
def test_mutated_configurations(data):
    values, chosen = json.loads(tiny.FOUR.to_json()), "diffuser.image"
    if data is not None:
        places = []

        def walk(inner):
            for key in inner if isinstance(inner, dict) else range(len(inner)):
                places.append((inner, key))
                if isinstance(inner[key], (dict, list)):
                    walk(inner[key])

        walk(values)
        field = data.draw(st.sampled_from(sorted(values)))  # or most would be in the networks
        own = [place for place in places if place[0] is not values and inside(values[field], place[0])]
        inner, key = data.draw(st.sampled_from([(values, field), *own]))
        chosen = next((part for part, name in FIELDS.items() if name == field), chosen)
        what = data.draw(st.sampled_from(["replace", "drop", "add"]))
        if what == "replace":
            inner[key] = data.draw(ANY)
        elif what == "drop":
            del inner[key]
        elif isinstance(inner, dict):
            inner[data.draw(st.text(max_size=5))] = data.draw(ANY)
    try:
        config = CoDiConfig.from_json(json.dumps(values))
    except ValueError as error:
        assert SENTENCE.fullmatch(str(error)) and re.search(r"Config\b.*", str(error)), str(error)
        return
    assert CoDiConfig.from_json(config.to_json()) == config
    if chosen not in part_names(config):
        return
    try:
        fit(chosen, {}, config, ["bad.sft"])
    except ValueError as error:
        assert str(error).count("bad.sft") and SENTENCE.fullmatch(str(error)), str(error)
        assert not BARE.search(str(error)), str(error)


@given(st.text() | st.binary())
def test_texts_that_are_no_configuration(text):
    try:
        CoDiConfig.from_json(text)
    except ValueError as error:
        assert SENTENCE.fullmatch(str(error).replace("\n", " "))


@given(st.lists(st.sampled_from(["a.pth", "b.SFT", "c.txt", ".d.pth", "e.safetensors", "f"]), max_size=5))
def test_folders(names):
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, name).write_bytes(b"")
        expected = sorted({name for name in names if name in ("a.pth", "b.SFT", "e.safetensors")})
        try:
            assert [path.name for path in resolve(folder)] == expected
        except FileNotFoundError:
            assert not expected
