"""A third party's plugin for medcl: handwritten digits, a folder of CSV files, one per writer."""
