"""`make demo`: from four manifests to a certificate in use, told step by step."""
