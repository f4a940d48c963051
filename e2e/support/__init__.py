"""Helpers for user stories and cluster tests."""
