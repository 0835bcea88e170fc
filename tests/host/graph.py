"""Prompts in the API form from a few words, and nodes that only tests have."""

from __future__ import annotations

from typing import Any

LOADER = {"checkpoint": "mini (built in)", "image_and_video": True, "audio": True, "text": True}
STREAMS = ("image", "video", "audio", "text")


class Graph:
    """A prompt that grows node by node.

    Attributes
    ----------
    prompt : dict
        In the API form.
    """

    def __init__(self):
        self.prompt: dict[str, dict] = {}

    def add(self, kind: str, **inputs: Any) -> Node:
        """Add a node. Inputs are values, `Node` for its first output, or ``node[1]`` for another."""
        name = str(len(self.prompt) + 1)
        links = {key: value[0] if isinstance(value, Node) else value for key, value in inputs.items()}
        self.prompt[name] = {"class_type": kind, "inputs": links}
        return Node(name)

    def load(self, checkpoint: str = LOADER["checkpoint"]) -> Node:
        return self.add("CoDiLoadModel", **LOADER | {"checkpoint": checkpoint})

    def empty(self, model, *streams: str, **sizes: Any) -> Node:
        inputs = {name: name in streams for name in STREAMS}
        inputs |= {"width": 0, "height": 0, "frames": 0, "seconds": 0.0, "batch_size": 1}
        return self.add("CoDiEmptyLatent", model=model, **inputs | sizes)

    def sample(self, model, prompt: Node, latent, **settings: Any) -> Node:
        """The stock KSampler; `prompt` is a node whose outputs are positive and negative."""
        inputs = {"seed": 0, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        inputs |= {"model": model, "positive": prompt[0], "negative": prompt[1], "latent_image": latent}
        return self.add("KSampler", **inputs | settings)

    def keep(self, name: str, value) -> None:
        """Have a value put into `Kept.values` under a name; a graph needs at least one such output."""
        self.add("TestKeep", name=name, value=value)


class Node:
    """A node of a `Graph`; indexing gives the link to one of its outputs."""

    def __init__(self, name: str):
        self._name = name

    def __getitem__(self, output: int) -> list:
        return [self._name, output]


class _Node:
    CATEGORY = "test"
    FUNCTION = "run"


class Kept(_Node):
    """Ends a graph; what reaches it is there for the test to look at, as a list."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    values: dict[str, list] = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {}), "value": ("*", {})}}

    def run(self, name, value):
        self.values[name[0]] = value
        return ()


class Give(_Node):
    """Hands on what the test put into `values` under a name."""

    RETURN_TYPES = ("*",)
    values: dict[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {})}}

    @classmethod
    def IS_CHANGED(cls, name):
        return id(cls.values[name])

    def run(self, name):
        return (self.values[name],)


class CancelWhileSampling(_Node):
    """A MODEL at whose first prediction the user presses Cancel."""

    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def run(self, model):
        import comfy.model_management as mm
        from comfy.patcher_extension import WrappersMP

        def cancelled(executor, *arguments, **named):
            mm.interrupt_current_processing()
            return executor(*arguments, **named)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", cancelled)
        return (model,)


def register(mappings: dict[str, type]) -> None:
    mappings |= {
        "TestKeep": Kept,
        "TestGive": Give,
        "TestCancelWhileSampling": CancelWhileSampling,
    }
