"""The development cluster: a real Kubernetes of two nodes on one machine, started and removed as a whole.

Everything runs in namespaces and control groups that carry the cluster's number. The machine's own
network namespace gets one veth and three routes, no rules and no settings; its mounts get none but the
names of the network namespaces.
"""
