"""The plane controller: brings a Kubernetes cluster to what its control plane wants, from inside, dialling out only."""
