"""Helm, and what is made of the chart's values and templates: schema, README and the kustomize base."""
