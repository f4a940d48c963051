"""docs/reference.md: the fields of the seven kinds, generated from the schemas of the CRDs."""
