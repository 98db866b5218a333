"""What a Kubernetes node needs around its agent: places made beforehand, the plugin's entry kept."""
