"""Allowed values of tags: from a file or a source of truth to Infracost's tagging policies."""
