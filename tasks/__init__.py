"""Prefect tasks: one library call each, with names and artifacts."""
