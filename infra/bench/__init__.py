"""Measurements: A against B in one run, on a running installation (`make demo` first)."""
