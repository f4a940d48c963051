"""docs/reference.md: the fields of the eight kinds, generated from the schemas of the CRDs."""
