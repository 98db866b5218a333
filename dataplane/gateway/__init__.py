"""The gateway: Envoy with files that the agent writes."""
