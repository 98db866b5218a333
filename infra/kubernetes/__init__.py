"""The development Kubernetes: built once from Debian's source package, started on this machine."""
