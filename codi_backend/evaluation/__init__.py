"""Measuring what the model makes."""

from .judges import judge_image, judge_sound, judge_text, judge_video

__all__ = ["judge_image", "judge_sound", "judge_text", "judge_video"]
