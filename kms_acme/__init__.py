"""The command line: what `kms-acme` runs."""
