"""The list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .alignment import CoDiAlignment, CoDiAlignmentCurve, CoDiAlignmentPair
from .colour import CoDiColourMatch
from .context_components import CoDiContextComponents
from .context_guider import CoDiContextGuider
from .context_mix import CoDiMixContexts
from .contexts import CoDiContextImage, CoDiContextText
from .decode import CoDiDecodeAudio, CoDiDecodeImage, CoDiDecodeText, CoDiDecodeVideo
from .embeddings import CoDiEmbeddingFromTensor, CoDiLoadEmbedding, CoDiSaveEmbedding
from .encode import CoDiEncodeAudio, CoDiEncodeImage, CoDiEncodeText, CoDiEncodeVideo
from .files import register_model_folder
from .guider import CoDiGuider
from .interpolation import CoDiInterpolate
from .joint_latents import CoDiHoldStreams, CoDiJoinLatents, CoDiSplitLatent
from .latents import CoDiEmptyLatent
from .loader import CoDiLoadModel
from .prompts import CoDiPromptAudio, CoDiPromptImage, CoDiPromptText, CoDiPromptVideo
from .sampling import CoDiSampleAudio, CoDiSampleImage, CoDiSampler, CoDiSampleText, CoDiSampleVideo
from .scenes import CoDiExampleScene
from .selection import CoDiPickBest
from .similarity import CoDiSimilarity
from .text_edit import CoDiEditTextLatent
from .vision_blend import CoDiBlendVisionOutputs
from .vision_focus import CoDiFocus


class CoDiExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CoDiLoadModel,
            CoDiExampleScene,
            CoDiPromptText,
            CoDiPromptImage,
            CoDiPromptVideo,
            CoDiPromptAudio,
            CoDiInterpolate,
            CoDiContextText,
            CoDiContextImage,
            CoDiContextComponents,
            CoDiMixContexts,
            CoDiSaveEmbedding,
            CoDiLoadEmbedding,
            CoDiEmbeddingFromTensor,
            CoDiEmptyLatent,
            CoDiEncodeImage,
            CoDiEncodeVideo,
            CoDiEncodeAudio,
            CoDiEncodeText,
            CoDiJoinLatents,
            CoDiSplitLatent,
            CoDiHoldStreams,
            CoDiPickBest,
            CoDiEditTextLatent,
            CoDiAlignment,
            CoDiAlignmentPair,
            CoDiAlignmentCurve,
            CoDiGuider,
            CoDiContextGuider,
            CoDiSampler,
            CoDiSampleImage,
            CoDiSampleVideo,
            CoDiSampleAudio,
            CoDiSampleText,
            CoDiDecodeImage,
            CoDiDecodeVideo,
            CoDiDecodeAudio,
            CoDiDecodeText,
            CoDiColourMatch,
            CoDiFocus,
            CoDiBlendVisionOutputs,
            CoDiSimilarity,
        ]
