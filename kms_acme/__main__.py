"""`python -m kms_acme` is `kms-acme`."""

from kms_acme.cli.main import main

main(prog_name="kms-acme")
