"""Evaluation: rule-based judges, runs and tables."""

from .judges import judge_audio, judge_image, judge_text, judge_video

__all__ = ["judge_image", "judge_audio", "judge_text", "judge_video"]
