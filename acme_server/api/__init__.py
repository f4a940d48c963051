"""Routes: decode, call a service, encode. No rules here."""
