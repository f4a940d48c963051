"""docs/reference.md: the fields of the six kinds, made from the schemas in crds/ that the API server itself enforces."""
