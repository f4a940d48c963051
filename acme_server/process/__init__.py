"""The server as a process: applications, listener, TLS, informers, background work, readiness, metrics."""
