"""Infracost Cloud: one method for each call of its API; `client.connect` makes a client."""
