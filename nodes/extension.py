"""The list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .alignment import CoDiAlignment
from .decode import CoDiDecodeAudio, CoDiDecodeImage
from .files import register_model_folder
from .latents import CoDiEmptyLatent
from .loader import CoDiLoadModel
from .prompts import CoDiPromptText


class CoDiExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [CoDiLoadModel, CoDiPromptText, CoDiEmptyLatent, CoDiAlignment, CoDiDecodeImage, CoDiDecodeAudio]
