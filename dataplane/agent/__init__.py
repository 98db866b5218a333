"""The node agent: what runs as root on a node. Knows nothing of Django."""
