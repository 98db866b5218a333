"""The chained CNI plugin: what stands between a cell's pod and its network until the node's agent has agreed."""
