"""Agentic Flywheel."""
