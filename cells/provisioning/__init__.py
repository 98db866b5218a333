"""Cells' places on planes that workers drive directly: the namespaces of Kubernetes."""
