"""Ratchet as a service: model files, their deployments, and the servers and worker that `ratchet up` runs."""
