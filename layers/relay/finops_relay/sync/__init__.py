"""Desired, remote, difference, verdict: what every sync is made of. Pure: no vendor, no AWS."""
