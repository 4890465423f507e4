"""Strict servers that behave as the vendors do, for tests and for the stack on one machine.

They share no code with our clients.
"""
