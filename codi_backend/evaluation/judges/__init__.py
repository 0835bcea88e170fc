"""The attributes of Shapes & Chimes, told from what any modality holds by plain rules.

Nothing here is trained or random, so that a number measured today is the number measured tomorrow. A judge would rather
say None than guess: what it cannot tell must not count as right.
"""

from .images import JudgedImage, JudgedObject, judge_image
from .sounds import JudgedSound, judge_sound
from .texts import JudgedText, judge_text
from .videos import JudgedVideo, judge_video

__all__ = [
    "JudgedImage",
    "JudgedObject",
    "JudgedSound",
    "JudgedText",
    "JudgedVideo",
    "judge_image",
    "judge_sound",
    "judge_text",
    "judge_video",
]
