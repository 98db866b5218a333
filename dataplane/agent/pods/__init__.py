"""Pods of cells on this node: who they are, where they and those of other nodes are."""
