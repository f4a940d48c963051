"""JOSE as ACME uses it: strict JSON and base64url, public keys, signatures, external account binding. Pure, no I/O.

Whatever the input, these modules answer with a value or raise `Refused`.
"""
