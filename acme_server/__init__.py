"""The ACME server: HTTP edge, JOSE, nonces, accounts, orders, validation (RFC 8555)."""
