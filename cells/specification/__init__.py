"""What a repository declares about itself: cytoplane.yaml, Procfile, and what was found in it."""

from cells.specification.model import (
    Component,
    Connection,
    Endpoint,
    External,
    Health,
    Limits,
    Scaling,
    Specification,
    SpecificationError,
)
from cells.specification.parser import parse
from cells.specification.validation import validate

__all__ = [
    "Component",
    "Connection",
    "Endpoint",
    "External",
    "Health",
    "Limits",
    "Scaling",
    "Specification",
    "SpecificationError",
    "parse",
    "validate",
]
