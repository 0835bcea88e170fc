"""Stage 2: the prompt encoders of image, video and audio, by contrast with text (bridging alignment, paper 3.2).

The text encoder is frozen. Image and audio never occur as a pair: text is the bridge between them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.encoders.audio import log_mel
from ..models.encoders.preprocess import clip_pixels, prepared_pixels
from ..pipeline import CoDi
from .contrast import Contrast
from .loop import Stage
from .scenes import SHAPES_AND_CHIMES
from .training_data import TrainingData

_EMPTY_EVERY = 20
_MEASURED = 256  # audio contents


class BridgingStage(Stage):
    """Trains one prompt encoder against the frozen text encoder; for video only its temporal blocks.

    The loss is symmetric InfoNCE with a learned temperature, plus the distance to the caption's embedding: contrast
    alone leaves a gap between the modalities, which changes the outputs of a diffuser that was trained on text. Of a
    new encoder's items one in twenty is empty (mid-grey, silence) and has the empty caption, so that unconditional
    embeddings agree too.

    Parameters
    ----------
    codi : CoDi
        With a trained text encoder.
    modality : {"image", "video", "audio"}
    data : TrainingData
    refine : bool
        Whether training continues from the encoder's weights; otherwise it must be a new one, for video one of images.
    """

    def __init__(
        self,
        codi: CoDi,
        modality: str,
        data: TrainingData = SHAPES_AND_CHIMES,
        refine: bool = False,
        distance_weight: float = 1.0,
    ):
        super().__init__()
        self.data, self.refine = data, refine
        self.name = f"bridging_{modality}"
        self.modality, self.distance_weight = modality, distance_weight
        self.text_encoder = codi.prompt_encoders["text"].requires_grad_(False)
        self.encoder = codi.prompt_encoders["audio" if modality == "audio" else "image"]
        self.contrast = Contrast()
        if modality == "video":
            self.encoder.requires_grad_(False)
            for layer in self.encoder.layers:
                layer.temporal.requires_grad_(True)
        elif modality == "image":
            for layer in self.encoder.layers if self.encoder.config.temporal else ():
                layer.temporal.requires_grad_(False)
            self.encoder.logit_scale.requires_grad_(False)
        else:
            self.encoder.unused.requires_grad_(False)
        if not refine:
            _begin(self.encoder, modality, data)

    def batch(self, step: int, size: int, seed: int) -> dict[str, Any]:
        batch = self.data.contents(self.modality, step, size, seed)
        if not self.refine:
            batch["contents"][::_EMPTY_EVERY] = 0.0 if self.modality == "audio" else 0.5
            batch["captions"] = ["" if i % _EMPTY_EVERY == 0 else text for i, text in enumerate(batch["captions"])]
        return batch

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        contents, captions = batch["contents"], batch["captions"]
        with torch.no_grad():
            text = self.text_encoder(self.text_encoder.tokenize(captions).to(contents.device))[:, 0]
        if self.modality == "audio":
            embedding = self.encoder(contents, self.encoder.config.input_rate)[:, 0]
        else:
            look = self.encoder.config
            square = prepared_pixels(contents, look, self.modality == "video")
            embedding = self.encoder(clip_pixels(square, look.image_size))[:, 0]
        contrast = self.contrast(text, embedding, captions)
        distance = (1 - (text * embedding).sum(-1)).mean()
        figures = {"contrast": float(contrast.detach()), "distance": float(distance.detach())}
        return contrast + self.distance_weight * distance, figures


@torch.no_grad()
def _begin(encoder: nn.Module, modality: str, data: TrainingData) -> None:
    """Set initial values for training from nothing; those of the classes are for weights that are loaded."""
    if modality == "image":
        nn.init.normal_(encoder.position_embedding.weight, std=0.02)
    elif modality == "video":  # a video's embedding begins as the mean of its frames'
        for layer in encoder.layers:
            nn.init.zeros_(layer.temporal.temporal_attn.to_out.weight)
            nn.init.zeros_(layer.temporal.ff.proj_out[1].weight)
    else:
        mel = log_mel(data.sample("audio", _MEASURED), encoder.config.mel)
        variance, mean = torch.var_mean(mel, (0, 1, 2))
        encoder.band_norm.mean.weight.copy_(mean)
        encoder.band_norm.variance.weight.copy_(variance)
