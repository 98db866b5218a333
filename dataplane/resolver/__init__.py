"""The resolver of the workloads: an unprivileged process with a namespace of its own."""
