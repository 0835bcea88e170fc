"""Measuring what the model makes."""

from .judges import JudgedImage, JudgedObject, JudgedSound, judge_image, judge_sound

__all__ = ["JudgedImage", "JudgedObject", "JudgedSound", "judge_image", "judge_sound"]
