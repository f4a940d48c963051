"""docs/reference.md: the fields of the six kinds, made from the schemas that the API server itself enforces."""
