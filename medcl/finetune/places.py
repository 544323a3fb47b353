"""Names of what lies in a study's folder, for those who only look whether it is there."""

FOLDER, FACTS = "folds", "fold.json"
"""Of all trainings; of one, complete with it."""
