"""A real ComfyUI with this pack in it: in this process, or as a server of its own.

The in-process host imports ComfyUI's modules in an order that matters: the device is chosen when
`comfy.model_management` is first imported, and `nodes` hides ComfyUI's `utils` package once it is imported.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

PACK = Path(__file__).resolve().parents[2]
PACK_NAME = "codi_pack"
STOCK_EXTRAS = [
    f"nodes_{name}"
    for name in ("custom_sampler", "audio", "video", "preview_any", "primitive", "mask", "toolkit", "context_windows")
]


@contextmanager
def stand_in_for_torchaudio() -> Iterator[None]:
    """Lets ComfyUI 0.33 be imported where torchaudio is missing, as newer ones can be.

    Its modules import torchaudio at their top and use it later. The stand-in is empty, and gone before the pack loads.
    """
    names = [] if find_spec("torchaudio") else ["torchaudio", "torchaudio.functional", "torchaudio.transforms"]
    import transformers  # noqa: F401  (looks which libraries are installed, and must not find the stand-in)

    sys.modules.update((name, ModuleType(name)) for name in names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def find_comfyui() -> Path | None:
    """The checkout named by COMFYUI_PATH, by default the one in ``~/comfy``, where comfy-cli puts it."""
    path = Path(os.environ.get("COMFYUI_PATH", Path.home() / "comfy" / "ComfyUI"))
    return path if (path / "comfy" / "model_management.py").is_file() else None


def boot(comfyui: Path) -> None:
    """Make ComfyUI's modules importable in this process, on the CPU."""
    if str(comfyui) not in sys.path:
        sys.path.insert(0, str(comfyui))
    import comfy.options  # noqa: F401  (leaves argument parsing off, so pytest's arguments are not read)
    from comfy.cli_args import args

    args.cpu = True
    import utils.install_util  # noqa: F401

    with stand_in_for_torchaudio():
        import execution  # noqa: F401
        import server  # noqa: F401

        import nodes  # noqa: F401


class ExecutionFailed(Exception):
    """A node raised; the message is what the user would read.

    Attributes
    ----------
    node : str
        The kind of node, if it is known.
    """

    node = ""


class Cancelled(Exception):
    """The user pressed Cancel."""


class _Server:
    """As much of PromptServer as executor and nodes touch."""

    client_id = None
    last_node_id = None
    last_prompt_id = None
    sockets_metadata: dict = {}

    def __init__(self):
        self.shown_texts: dict[str, str] = {}  # by node

    def send_progress_text(self, text, node_id, sid=None):
        self.shown_texts[node_id] = text

    def send_sync(self, event, data, sid=None):
        pass

    def queue_updated(self):
        pass


class InProcess:
    """ComfyUI's own validator and executor, without a server.

    Attributes
    ----------
    pack_nodes : set of str
        Ids of the nodes that the pack registered.
    output : Path
        Where save nodes write.
    shown_texts : dict of str to str
        The text that a node of the last prompt shows, by its id.
    executed : set of str
        The nodes of the last prompt whose outputs were not in the cache.
    """

    def __init__(self, comfyui: Path, directory: Path, pack: Path = PACK):
        boot(comfyui)
        import execution
        import folder_paths
        import server

        import nodes

        for kind in ("output", "temp", "input"):
            (directory / kind).mkdir()
            getattr(folder_paths, f"set_{kind}_directory")(str(directory / kind))
        folder_paths.models_dir = str(directory / "models")
        self.output, self.models, self.temp = directory / "output", directory / "models" / "codi", directory / "temp"
        self.models.mkdir(parents=True)

        server.PromptServer.instance = self._server = _Server()
        with stand_in_for_torchaudio():
            for name in STOCK_EXTRAS:
                path = str(comfyui / "comfy_extras" / f"{name}.py")
                assert asyncio.run(nodes.load_custom_node(path, module_parent="comfy_extras")), name
        self._nodes, self._execution = nodes, execution
        # Loaded through a link, since the folder of an installed pack may have any name.
        self._pack = directory / PACK_NAME
        self._pack.symlink_to(pack)
        self.pack_nodes = asyncio.run(self._load())
        self.forget()

    async def _load(self) -> set[str]:
        before = set(self._nodes.NODE_CLASS_MAPPINGS)
        assert await self._load_pack(), "the pack did not load"
        return set(self._nodes.NODE_CLASS_MAPPINGS) - before

    async def _load_pack(self) -> bool:
        return await self._nodes.load_custom_node(str(self._pack), module_parent="custom_nodes")

    def module(self, name: str):
        """A module of the pack as ComfyUI imported it, such as ``nodes.runtime.model``."""
        return importlib.import_module(f"{str(self._pack).replace('.', '_x_')}.{name}")

    def node(self, name: str):
        return self._nodes.NODE_CLASS_MAPPINGS[name]

    @property
    def shown_texts(self) -> dict[str, str]:
        return self._server.shown_texts

    def forget(self) -> None:
        """Start with an empty cache of node outputs and no loaded models."""
        import comfy.model_management

        comfy.model_management.unload_all_models()
        self._executor = self._execution.PromptExecutor(
            self._server,
            cache_type=self._execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0, "ram_inactive": 0},
        )

    def free(self) -> None:
        """What the server does when the user asks for models to be unloaded and memory to be freed."""
        import comfy.model_management

        comfy.model_management.unload_all_models()
        self._executor.reset()
        gc.collect()
        comfy.model_management.soft_empty_cache()

    def run(self, prompt: dict) -> dict:
        """Execute a prompt in the API form; the outputs of its nodes as the history shows them."""
        name = f"{time.time()}"
        valid, error, outputs, node_errors = asyncio.run(self._execution.validate_prompt(name, prompt, None))
        if not valid or node_errors:
            raise ValueError(f"{error} {json.dumps(node_errors)}")
        self._server.shown_texts.clear()
        self._executor.execute(prompt, name, {}, outputs)
        messages = dict(self._executor.status_messages)
        self.executed = set(prompt) - set(messages["execution_cached"]["nodes"])
        if "execution_interrupted" in messages:
            raise Cancelled
        if not self._executor.success:
            failure = ExecutionFailed(messages["execution_error"]["exception_message"])
            failure.node = messages["execution_error"]["node_type"]
            raise failure
        return self._executor.history_result["outputs"]


class Http:
    """`main.py` on a free port, with a base directory of its own that has this pack among its custom nodes.

    A base directory may be used again by a later server. `state` is ComfyUI's option for device and memory.
    """

    def __init__(self, comfyui: Path, directory: Path, pack: Path = PACK, state: str = "--cpu"):
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (directory / name).mkdir(exist_ok=True)
        if not (link := directory / "custom_nodes" / PACK_NAME).exists():
            link.symlink_to(pack)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.directory = directory
        self._log = open(directory / "log.txt", "w")
        arguments = [state, "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(directory)]
        arguments += ["--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes"]
        if '"--offline"' in (comfyui / "comfy" / "cli_args.py").read_text():  # newer ones
            arguments.append("--offline")
        self._process = subprocess.Popen(
            [sys.executable, "main.py", *arguments], cwd=comfyui, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._wait_until_up(time.monotonic() + 120)

    def _wait_until_up(self, end: float) -> None:
        while True:
            try:
                self.get("/system_stats")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.close()
                    raise RuntimeError("ComfyUI did not start:\n" + self.log()[-3000:]) from None
                time.sleep(0.2)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def log(self) -> str:
        return (self.directory / "log.txt").read_text()

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def get(self, path: str) -> dict:
        return json.loads(self.read(path))

    def queue(self, prompt: dict) -> str:
        """Queue a prompt in the API form; returns its id."""
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(self.url + "/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from None

    def run(self, prompt: dict, timeout: float = 120) -> dict:
        """Queue a prompt in the API form and wait for its outputs."""
        return self.wait(self.queue(prompt), timeout)

    def wait(self, name: str, timeout: float = 120) -> dict:
        """The outputs of a queued prompt when it is done."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self.get(f"/history/{name}").get(name)
            if entry is None:
                time.sleep(0.1)
                continue
            if entry["status"]["status_str"] != "success":
                raise ExecutionFailed(json.dumps(entry["status"]["messages"][-1]))
            return entry["outputs"]
        raise TimeoutError(f"{name} was not done after {timeout} s:\n{self.log()[-2000:]}")

    def kill(self) -> None:
        """End at once, as when the machine fails."""
        self._process.kill()
        self._process.wait(20)
        self._log.close()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()
