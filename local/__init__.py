"""The stack on one machine: start it, the vendors' stand-ins, the demo."""
