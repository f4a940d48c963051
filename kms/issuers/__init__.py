"""Issuing CAs: one module a type, behind one protocol."""
