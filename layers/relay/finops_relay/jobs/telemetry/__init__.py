"""Telemetry: files and records of applications, added up by record and counted once."""
