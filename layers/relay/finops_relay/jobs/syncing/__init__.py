"""Syncs: what deliveries that follow a source of truth have in common, on both sides of the spool."""
