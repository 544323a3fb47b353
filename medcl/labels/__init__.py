"""Labels as one `Target`, from tables and tasks; what a classifier predicts."""
