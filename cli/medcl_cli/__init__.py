"""The medcl command line."""
