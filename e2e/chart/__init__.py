"""Helm, and the files generated from the chart: schema, README and the kustomize base."""
