"""Jinja templates with bounds on time and memory."""
