"""Files that try to run code when they are read: each would leave a marker."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import torch


def payloads(marker):
    """Objects whose unpickling makes the file `marker`, by name."""
    path, code = str(marker), f"open({str(marker)!r}, 'w').close()"
    command = f"touch '{path}'"

    def call(function, *arguments):
        return type("Call", (), {"__reduce__": lambda self: (function, arguments)})()

    import builtins
    import os
    import runpy
    import subprocess

    items = [(1, call(os.system, command))]
    return {
        "os.system": call(os.system, command),
        "os.popen": call(os.popen, command),
        "subprocess.call": call(subprocess.call, ["touch", path]),
        "subprocess.Popen": call(subprocess.Popen, ["touch", path]),
        "eval": call(builtins.eval, code),
        "exec": call(builtins.exec, code),
        "open": call(builtins.open, path, "w"),
        "getattr": call(builtins.getattr, call(builtins.__import__, "os"), "sep"),
        "runpy": call(runpy._run_code, code, {}),
        "apply": type("Call", (), {"__reduce__": lambda self: (map, (eval, [code]), None, iter([1]))})(),
        "items": type("Call", (), {"__reduce__": lambda self: (OrderedDict, (), None, None, iter(items))})(),
        "reduce_ex": type("Call", (), {"__reduce_ex__": lambda self, protocol: (os.system, (command,))})(),
        "load": call(torch.serialization.load, path),
        "numpy": np.array([call(os.system, command)], dtype=object),
    }


def assembled(marker):
    """Pickles that no pickler writes, by name."""
    command = f"touch '{marker}'".encode()
    short = b"\x8c" + bytes([len(command)]) + command
    return {
        "inst": b"(S'" + command.replace(b"'", b"\\'") + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + command.replace(b"'", b"\\'") + b"'\no.",
        "global": b"cos\nsystem\n(S'" + command.replace(b"'", b"\\'") + b"'\ntR.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R.",
        "memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93" + short + b"\x85R.",
        "dict": b"\x80\x02}X\x05\x00\x00\x00modelcos\nsystem\n(S'" + command.replace(b"'", b"\\'") + b"'\ntRs.",
        "newobj": b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93" + short + b"\x85\x81.",
    }


def torch_zip(data, names=("archive/data.pkl", "archive/version", "archive/byteorder")):
    """An archive as torch.save writes it, around a pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, inside in zip(names, (data, b"3\n", b"little")):
            file.writestr(name, inside)
    return content.getvalue()


def torch_old(data):
    """A file in torch's old format, around a pickle."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(parts) + data + pickle.dumps([], 2)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def object_array(payload):
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload, 1], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def object_arrays(payload):
    buffer = io.BytesIO()
    np.savez(buffer, embedding=np.array([payload, 1], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def corpus(marker):
    """Contents of files, by name."""
    weights = {"diffuser.image.out.weight": torch.zeros(2)}
    files = {}
    for name, payload in payloads(marker).items():
        files[f"zip {name}"] = saved({**weights, "extra": payload})
        files[f"old {name}"] = saved({**weights, "extra": payload}, _use_new_zipfile_serialization=False)
        files[f"bare {name}"] = pickle.dumps({**weights, "extra": payload}, 2)
    for name, data in assembled(marker).items():
        files[f"zip {name}"], files[f"old {name}"], files[f"bare {name}"] = torch_zip(data), torch_old(data), data
    payload = payloads(marker)["os.system"]
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    in_a_storage = tensor + assembled(marker)["global"][:-1] + b"tQtR."
    for protocol in range(6):
        files[f"protocol {protocol}"] = pickle.dumps(payload, protocol)
        files[f"zip protocol {protocol}"] = saved(payload, pickle_protocol=protocol)
    files |= {
        "state_dict": saved({"state_dict": {**weights, "epoch": payload}}),
        "key": saved({"model": weights, "optimizer": {"state": {0: payload}}}),
        "storage": torch_zip(in_a_storage),
        "after the end": saved(weights, _use_new_zipfile_serialization=False) + pickle.dumps(payload),
        "second pickle": torch_zip(pickle.dumps(payload, 2), ("a/data.pkl", "b/data.pkl", "a/version")),
        "lookalike": b"\x10" + b"\0" * 7 + b"{}" + b" " * 14 + pickle.dumps(payload),
        "array": object_array(payload),
        "arrays": object_arrays(payload),
    }  # fmt: skip
    return files
