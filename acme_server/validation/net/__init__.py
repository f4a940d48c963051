"""Guarded connections to hosts that a client chose."""
