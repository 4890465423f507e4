"""The core under both vendors' clients, and the only importer of httpx; it knows no vendor."""
