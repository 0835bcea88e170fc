"""`codi selfcheck`: a check of model files that owners of published files can run and post."""

from .report import SelfCheck, selfcheck

__all__ = ["SelfCheck", "selfcheck"]
