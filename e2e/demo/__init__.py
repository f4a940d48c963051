"""`make demo`: from four manifests to a certificate in use, step by step."""
