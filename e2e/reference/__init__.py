"""docs/reference.md: the fields of the six kinds, generated from the schemas of the CRDs."""
