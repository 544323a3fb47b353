"""Methods that only make sense for biosignals; see `medcl.methods` for the others."""
