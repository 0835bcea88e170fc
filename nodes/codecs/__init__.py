"""Nodes that encode and decode media."""
