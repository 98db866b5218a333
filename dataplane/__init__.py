"""Where cells run, and what enforces them there."""
