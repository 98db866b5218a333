"""`cyto`: the command line, a client of the REST API and nothing else."""

__version__ = "0.1.0"
