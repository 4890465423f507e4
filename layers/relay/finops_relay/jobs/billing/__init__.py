"""Billing drops: costs that are sent to CloudZero, each row once."""
