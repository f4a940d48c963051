"""Validation of challenges: the validators, their network access, and the worker that runs them."""
