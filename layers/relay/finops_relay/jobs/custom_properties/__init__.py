"""Custom properties: from a file or a source of truth to Infracost."""
