"""Kernel programs, their loader and access to their maps. Knows nothing of Django."""
