"""Orders (RFC 8555, 7.4): from new-order to the certificate."""
