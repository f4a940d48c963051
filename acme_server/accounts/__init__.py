"""Accounts (RFC 8555, 7.3): opening, updating, key rollover, external account binding."""
