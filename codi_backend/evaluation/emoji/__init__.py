"""An evaluation on the emoji dataset, by judges that no model saw. None of them is a trained network."""

from .judges import JUDGES, Judge, build_judge, measure
from .runs import RUNS, EmojiJudges, generate_and_judge
from .tables import make_tables

__all__ = ["JUDGES", "RUNS", "EmojiJudges", "Judge", "build_judge", "generate_and_judge", "make_tables", "measure"]
