"""The scoreboard: public sets with their official folds and measures, one command each."""
