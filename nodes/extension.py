"""The list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .alignment import CoDiAlignment, CoDiAlignmentCurve, CoDiAlignmentPair
from .clip_vision.blend import CoDiBlendVisionOutputs
from .clip_vision.focus import CoDiFocus
from .clip_vision.from_prompt import CoDiPromptToClipVisionOutput
from .codecs.decode import CoDiDecodeAudio, CoDiDecodeImage, CoDiDecodeText, CoDiDecodeVideo
from .codecs.encode import CoDiEncodeAudio, CoDiEncodeImage, CoDiEncodeText, CoDiEncodeVideo
from .contexts.components import CoDiContextComponents
from .contexts.encoders import CoDiContextImage, CoDiContextText
from .contexts.guider import CoDiContextGuider
from .contexts.mix import CoDiMixContexts, CoDiMixContextsByWeight
from .coupling.couple_guiders import CoDiCoupleGuiders
from .coupling.load_save import CoDiCouplerFromModel, CoDiLoadCoupler, CoDiSaveCoupler
from .coupling.train import CoDiTrainCoupler
from .latents.add_noise import CoDiAddNoise
from .latents.batch import CoDiBatchLatents, CoDiLatentFromBatch, CoDiRepeatLatentBatch
from .latents.edit_text import CoDiEditTextLatent
from .latents.empty import CoDiEmptyLatent
from .latents.joint import CoDiHoldStreams, CoDiJoinLatents, CoDiSplitLatent
from .latents.pick_best import CoDiPickBest
from .latents.save_load import CoDiLoadJointLatent, CoDiSaveJointLatent
from .latents.slice import CoDiSliceLatent
from .latents.stream_mask import CoDiSetStreamMask
from .latents.upscale import CoDiUpscaleStream
from .loaders import CoDiLoadModel
from .prompts.embeddings import CoDiEmbeddingFromTensor, CoDiLoadEmbedding, CoDiSaveEmbedding
from .prompts.encoders import CoDiPromptAudio, CoDiPromptImage, CoDiPromptText, CoDiPromptVideo
from .prompts.interpolate import CoDiInterpolate, CoDiInterpolatePrompts
from .prompts.schedule import CoDiPromptSchedule
from .runtime.coupler_files import register_coupler_folder
from .runtime.files import register_model_folder
from .samplers.guider import CoDiGuider
from .samplers.samplers import CoDiSampleAudio, CoDiSampleImage, CoDiSampler, CoDiSampleText, CoDiSampleVideo
from .tools.colour_match import CoDiColourMatch
from .tools.example_scene import CoDiExampleScene
from .tools.similarity import CoDiSimilarity


class CoDiExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folder()
        register_coupler_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CoDiLoadModel,
            CoDiExampleScene,
            CoDiPromptText,
            CoDiPromptImage,
            CoDiPromptVideo,
            CoDiPromptAudio,
            CoDiInterpolatePrompts,
            CoDiInterpolate,
            CoDiPromptSchedule,
            CoDiContextText,
            CoDiContextImage,
            CoDiContextComponents,
            CoDiMixContextsByWeight,
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
            CoDiSetStreamMask,
            CoDiSliceLatent,
            CoDiRepeatLatentBatch,
            CoDiLatentFromBatch,
            CoDiBatchLatents,
            CoDiAddNoise,
            CoDiUpscaleStream,
            CoDiSaveJointLatent,
            CoDiLoadJointLatent,
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
            CoDiPromptToClipVisionOutput,
            CoDiSimilarity,
            CoDiCoupleGuiders,
            CoDiLoadCoupler,
            CoDiCouplerFromModel,
            CoDiTrainCoupler,
            CoDiSaveCoupler,
        ]
