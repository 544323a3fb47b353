"""Labels as one `Target`, from tables and tasks; the outputs of a classifier."""
