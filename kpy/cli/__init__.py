"""The command line: what `kpy` and `python -m kpy` do."""
