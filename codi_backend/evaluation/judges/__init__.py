"""Rule-based judges: the attributes of Shapes & Chimes, measured in the contents of each modality.

The judges are deterministic and have no trained parts. A judge returns None instead of a guess: an attribute that it
cannot measure must not count as right.
"""

from .audio import JudgedAudio, judge_audio
from .image import JudgedImage, JudgedObject, judge_image
from .text import JudgedText, judge_text
from .video import JudgedVideo, judge_video

__all__ = [
    "JudgedImage",
    "JudgedObject",
    "JudgedAudio",
    "JudgedText",
    "JudgedVideo",
    "judge_image",
    "judge_audio",
    "judge_text",
    "judge_video",
]
