"""A node's way to the platform's image registry: what a cell may pull, and a proxy that holds it to that."""
