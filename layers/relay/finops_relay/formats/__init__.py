"""Bytes and rows: what people drop, read with care. No HTTP, no AWS, no file system but a spool for rejected rows."""
