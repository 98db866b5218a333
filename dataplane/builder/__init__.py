"""The builder: turns source into images, isolated from everything but the package index."""
