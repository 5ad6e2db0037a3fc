"""Prefect tasks: one library call each, with names, retries and artifacts."""
