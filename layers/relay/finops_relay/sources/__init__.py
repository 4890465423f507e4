"""Clients of sources of truth, which are only ever read; `asks` and `expressions` load no HTTP."""
