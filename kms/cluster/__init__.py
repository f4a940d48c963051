"""The Kubernetes API: client, informers, conflicts and retries."""
