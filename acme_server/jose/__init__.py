"""JOSE for ACME: strict JSON and base64url, public keys, signatures, external account binding. Pure, no I/O.

For any input, these modules return a value or raise `Refused`.
"""
