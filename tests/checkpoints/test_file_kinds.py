"""Files that are no checkpoints: each has its own sentence, whatever its name."""

import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file

from codi_backend.checkpoints.inspect import inspect
from codi_backend.checkpoints.native import read_parts
from codi_backend.checkpoints.tensor_file import TensorFile


def image(kind):
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, kind)
    return content.getvalue()


def archive(names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return content.getvalue()


def tar():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        file.addfile(tarfile.TarInfo("model.pth"), io.BytesIO(b""))
    return content.getvalue()


def arrays():
    content = io.BytesIO()
    np.savez(content, a=np.zeros(3))
    return content.getvalue()


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def header(fields, data=b""):
    text = json.dumps(fields).encode() if isinstance(fields, dict) else fields
    return struct.pack("<Q", len(text)) + text + data


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3)}
ZIP, OLD, SAFE = saved(TENSORS), saved(TENSORS, _use_new_zipfile_serialization=False), save(TENSORS)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BROKEN = "cannot be read as safetensors .*its header is damaged; fetch or convert it again"
ROW = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

KINDS = {
    "empty": (b"", "is empty: fetch the file itself again"),
    "lfs": (LFS, "is a git-lfs pointer, not the file itself: run 'git lfs pull'"),
    "page": (b"\n<!DOCTYPE html><title>404</title>" + b"x" * 500, "is a web page, not a checkpoint: fetch"),
    "login": (b"\xef\xbb\xbf<HTML><body>Sign in</body></HTML>", "is a web page"),
    "s3": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "json": (b'{"error": "Repository not found"}', "is a JSON text, such as a server's message"),
    "list": (b'[{"message": "rate limit"}]', "is a JSON text"),
    "text": (b"Entry not found", "is a text, not a checkpoint .it begins with 'Entry not found'."),
    "utf16": ("Nicht gefunden".encode("utf-16"), "is a text"),
    "cut text": (b"a" + "é".encode() * 5000, "is a text"),
    "png": (image("PNG"), "is a PNG image"),
    "jpeg": (image("JPEG"), "is a JPEG image"),
    "gif": (image("GIF"), "is a GIF image"),
    "webp": (image("WEBP"), "is a WebP image"),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", "is a WAV file"),
    "mp4": (b"\0\0\0\x18ftypmp42" + b"\0" * 20, "is a media file"),
    "zip": (archive(["readme.txt", "model.pth"]), "is a zip archive, not a checkpoint .it holds 'readme.txt'.: unpack"),
    "npz": (arrays(), r"is an archive of NumPy arrays \(.npz\)"),
    "script": (archive(["m/code/m.py", "m/constants.pkl", "m/data.pkl"]), "is a TorchScript program"),
    "tar": (tar(), "is a tar archive: unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04" + b"\0" * 30, "is a 7-Zip archive: unpack it"),
    "gzip": (b"\x1f\x8b\x08\0" + b"\0" * 30, "is a gzip archive: unpack it"),
    "gguf": (b"GGUF\x03\0\0\0" + b"\0" * 30, "is a GGUF file of llama.cpp: get the weights as safetensors"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.1:\xff\x01", "is an ONNX model"),
    "flax": (b"\x82\xa6params\x81\xa5dense\xc7\x10\x01\xff\xfe", "is a msgpack file, as Flax writes"),
    "keras": (b"\x89HDF\r\n\x1a\n" + b"\0" * 30, "is an HDF5 file"),
    "savedmodel": (b"\x08\x01\x12\x90\xff" + b"\0" * 30, "is a TensorFlow SavedModel"),
    "npy": (b"\x93NUMPY\x01\0", "is a NumPy array, not a checkpoint"),
    "unknown": (bytes(range(200, 256)) * 9, "is neither safetensors nor a PyTorch file"),
    "pickle": (pickle.dumps([1, 2]), "is a pickle of Python objects, not a checkpoint"),
    "old pickle": (pickle.dumps({"a": [1]}, protocol=0), "is a pickle of Python objects, not a checkpoint"),
    "torch zip cut": (ZIP[: len(ZIP) // 2], "is a PyTorch file that is cut short or damaged: fetch it again"),
    "zip cut": (archive(["readme.txt"])[:-10], "is a zip archive that is cut short or damaged"),
    "torch old cut": (OLD[:-20], r"cannot be read as a PyTorch checkpoint \(.+\): it is cut short"),
    "a number": (saved(3), "holds no tensors by name but a int"),
    "a list": (saved([torch.ones(2)]), "holds no tensors by name but a list"),
    "no tensor": (saved({"epoch": 3}), "holds no tensors by name: it is not a checkpoint"),
    "strange entry": (saved({"unet": TENSORS}), "holds no tensors by name, and none under the usual"),
    "header cut": (SAFE[:40], r"is cut short: its safetensors header needs \d+ bytes, and the file has 40"),
    "data cut": (SAFE[:-8], "cannot be read as safetensors .*: it is cut short; fetch or convert it again"),
    "absurd header": (b"\xff" * 7 + b"\x7f{" + b"\0" * 40, "claims a safetensors header of 92233720368547758.. bytes"),
    "header is no JSON": (header(b"{" + b"\0" * 40), "cannot be read as safetensors"),
    "offsets": (header({"a": {**ROW, "data_offsets": [4, 8]}}, b"\0" * 8), BROKEN),
    "shape": (header({"a": {**ROW, "shape": [2]}}, b"\0" * 4), BROKEN),
    "dtype": (header({"a": {**ROW, "dtype": "F31"}}, b"\0" * 4), BROKEN),
    "huge": (header({"a": {**ROW, "shape": [2**40, 2**40]}}, b"\0" * 4), BROKEN),
    "twice": (
        header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
               b"\0" * 4),
        "holds a twice: it is damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".PTH"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_sentence(tmp_path, kind, suffix):
    content, message = KINDS[kind]
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^bad{suffix} {message}") as caught:
        TensorFile(path)
    assert "could run code" not in str(caught.value) and "\n" not in str(caught.value)


def test_readers_agree(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(LFS)
    with pytest.raises(ValueError, match="^model.pth is a git-lfs pointer") as caught:
        read_parts(path)
    [file] = inspect(path).files
    assert file.problem == str(caught.value)


@pytest.mark.parametrize("content", [ZIP, OLD, SAFE], ids=["zip", "old", "safetensors"])
@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.safetensors", "a.SFT", "a.Bin", "a"])
def test_content_counts_and_not_the_name(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    file = TensorFile(tmp_path / name)
    assert {key: file.shape(key) for key in file.keys()} == {"a.weight": (2, 3), "a.bias": (3,)}
    assert all(torch.equal(file[key], value) for key, value in TENSORS.items())


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x8B1F, 0x2A4949, 0x395A42])
def test_a_length_of_a_header_may_look_like_another_mark(tmp_path, length):
    """As those of pickles, gzip and TIFF."""
    data = SAFE[8 + struct.unpack("<Q", SAFE[:8])[0] :]
    text = SAFE[8 : len(SAFE) - len(data)].rstrip()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + text.ljust(length) + data)
    file = TensorFile(tmp_path / "a.safetensors")
    assert all(torch.equal(file[key], value) for key, value in TENSORS.items())


def test_an_archive_that_another_program_packed_is_read_rightly(tmp_path):
    with zipfile.ZipFile(io.BytesIO(ZIP)) as old, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    file = TensorFile(tmp_path / "a.pth")
    assert all(torch.equal(file[key], value) for key, value in TENSORS.items())


def test_the_description_of_the_tensors_is_compared_with_its_check_sum(tmp_path):
    data = bytearray(ZIP)
    data[data.index(b"a.weight") + 2] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ValueError, match="^a.pth cannot be read as a PyTorch checkpoint .Bad CRC-32"):
        TensorFile(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.empty(3, device="meta"),
    ],
    ids=["sparse", "quantized", "meta"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_values(tmp_path, make):
    torch.save({"a.weight": make()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="^a.pth (holds a.weight without plain values|cannot be read)"):
        TensorFile(tmp_path / "a.pth")


def test_types_that_torch_lacks(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(
        header({"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4)
    )
    file = TensorFile(tmp_path / "a.safetensors")
    try:
        assert file["a"].shape == (4,)
    except ValueError as error:
        assert str(error).startswith("a.safetensors holds a in a form that this version of PyTorch cannot read")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder: choose the checkpoint files in it"):
        TensorFile(tmp_path)


def test_safetensors_without_tensors(tmp_path):
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="^a.safetensors holds no CoDi configuration"):
        read_parts(tmp_path / "a.safetensors")
