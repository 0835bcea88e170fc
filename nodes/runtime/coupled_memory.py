"""The models of a coupled run, in memory together."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management as mm
from comfy.model_patcher import ModelPatcher
from comfy.sampler_helpers import estimate_memory, get_additional_models

from .coupled_stream import Stream


class LoadedTogether:
    """Loads the models of all streams at once, so that none is unloaded for another one without need.

    Models run one after the other, so the largest of their needs counts. Where the device is too small, each is loaded
    in part by the memory manager.

    Parameters
    ----------
    streams : sequence of Stream
        Several may have the same model, with patches of their own.
    reserved : int
        Bytes that stay free for the coupler.
    """

    def __init__(self, streams: Sequence[Stream], reserved: int = 0):
        self.streams = streams
        self._additional: dict[int, list[ModelPatcher]] = {}
        needs = [self._need(stream) for stream in streams]
        self.required, self.minimum = (max(values) + reserved for values in zip(*needs))

    def _need(self, stream: Stream) -> tuple[float, float]:
        """Bytes that a stream's model takes to run: the usual number, and the smallest one."""
        patcher, conds = stream.patcher, getattr(stream.guider, "original_conds", {})
        models, inference = get_additional_models(conds, patcher.model_dtype())
        # Some guiders have a second model, such as one for the negative prompt.
        others = [one for one in vars(stream.guider).values() if isinstance(one, ModelPatcher) and one is not patcher]
        self._additional[id(stream)] = [*others, *models, *patcher.get_nested_additional_models()]
        required, minimum = estimate_memory(patcher, stream.noise.shape, conds)
        return required + inference, minimum + inference

    def load(self, first: Stream | None = None) -> None:
        """Load all models; where several streams have the same one, with the patches of `first`."""
        ordered = sorted(self.streams, key=lambda stream: stream is not first)
        rows = [self._models(stream) for stream in ordered]
        distinct: dict[int, ModelPatcher] = {}
        for patcher in [*(row[0] for row in rows), *(one for row in rows for one in row[1:])]:
            distinct.setdefault(id(patcher.model), patcher)
        mm.load_models_gpu(list(distinct.values()), memory_required=self.required, minimum_memory_required=self.minimum)

    def _models(self, stream: Stream) -> list[ModelPatcher]:
        """The models of a stream, that of its guider first."""
        # Hooks may add some when the guider is entered.
        more = getattr(stream.guider, "loaded_models", ())
        return list(dict.fromkeys([stream.patcher, *self._additional[id(stream)], *more]))

    def activate(self, stream: Stream) -> None:
        """Prepare the model of a stream, which may have been unloaded or patched for another stream."""
        patcher, model = stream.patcher, stream.patcher.model
        for other in self.streams:
            if other.patcher.model is model and other.patcher is not patcher and other.patcher.hook_backup:
                other.patcher.unpatch_hooks()
        loaded = mm.loaded_models()
        if any(one not in loaded for one in self._models(stream)):
            self.load(stream)
        if hasattr(model, "current_patcher"):
            model.current_patcher = patcher
        if stream.latent_shapes is not None:
            model.latent_shapes = stream.latent_shapes
