"""Prompts of all kinds to CONDITIONING."""

from __future__ import annotations

from comfy_api.latest import io

from .hints import show_hints
from .media_inputs import audio_samples, image_pixels, video_pixels
from .types import CATEGORY, PromptEncodersType


def _schema(kind: str, description: str, aliases: list[str], content: io.Input, nothing: str, **more) -> io.Schema:
    return io.Schema(
        node_id=f"CoDiPrompt{kind}",
        display_name=f"CoDi Prompt ({kind})",
        category=f"{CATEGORY}/prompts",
        description=description,
        search_aliases=[*aliases, "prompt", "conditioning", "codi"],
        inputs=[
            PromptEncodersType.Input("prompt_encoders", tooltip="The prompt encoders from CoDi Load Model."),
            content,
        ],
        outputs=[
            io.Conditioning.Output(display_name="positive", tooltip="The prompt."),
            io.Conditioning.Output(
                display_name="unconditional",
                tooltip=f"What guidance leads away from: {nothing}. Connect it to KSampler's negative.",
            ),
        ],
        **more,
    )


def _conditionings(prompt_encoders, kind: str, *content) -> io.NodeOutput:
    if prompt_encoders is None:
        raise ValueError("prompt_encoders: nothing is connected; connect the prompt encoders of CoDi Load Model.")
    embedding, unconditional = prompt_encoders.prompt(kind, *content)
    return io.NodeOutput([[embedding, {}]], [[unconditional, {}]])


class CoDiPromptText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Text",
            "Encodes a text prompt.",
            ["text encode", "clip text encode"],
            io.String.Input(
                "text",
                multiline=True,
                dynamic_prompts=True,
                default="three red stars, slowly",
                tooltip="What is to be seen and heard; leave it empty to generate without a prompt.",
            ),
            "the empty text",
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompt_encoders, text) -> io.NodeOutput:
        output = _conditionings(prompt_encoders, "text", [text])
        show_hints(cls, prompt_encoders.text_hints([text]))
        return output


class CoDiPromptImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Image",
            "Encodes images as prompts.",
            ["image to image", "image variation", "clip vision encode", "unclip", "ip adapter"],
            io.Image.Input(
                "image",
                tooltip="Of any size; the centre square is looked at, what is transparent is white. A batch gives one "
                "prompt for each image.",
            ),
            "mid-grey",
        )

    @classmethod
    def execute(cls, prompt_encoders, image) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "image", image_pixels(image, "image"))


class CoDiPromptVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Video",
            "Encodes a video as a prompt.",
            ["video to video", "video to audio", "clip vision encode"],
            io.MultiType.Input(
                "video",
                [io.Video, io.Image],
                tooltip="A video, or images that are its frames. The centre squares are looked at, in some frames "
                "of a long video.",
            ),
            "mid-grey",
        )

    @classmethod
    def execute(cls, prompt_encoders, video) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "video", video_pixels(video))


class CoDiPromptAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Audio",
            "Encodes sounds as prompts.",
            ["audio to image", "audio to video", "clap", "sound to image", "audio encode"],
            io.Audio.Input(
                "audio",
                tooltip="At any sample rate; channels are averaged, and the middle of a long sound is listened to. "
                "A batch gives one prompt for each sound.",
            ),
            "silence",
        )

    @classmethod
    def execute(cls, prompt_encoders, audio) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "audio", *audio_samples(audio))
