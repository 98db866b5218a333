"""Images of all parts, made of layers that they share, from Debian's packages and this repository."""
