"""Judges of what models make of the emoji dataset. No model saw them, and none of them is a trained network."""

from .judges import NearestJudge, concept_judge, instrument_judge, measure

__all__ = ["NearestJudge", "concept_judge", "instrument_judge", "measure"]
