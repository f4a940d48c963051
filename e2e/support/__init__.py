"""Helpers that user stories and the test cluster share."""
