"""Layers that all families share."""
