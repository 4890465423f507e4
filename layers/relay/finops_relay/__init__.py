"""FinOps Relay: deliveries to Infracost Cloud and CloudZero that lose nothing, double nothing, and leave a receipt."""

__version__ = "0.1.0"
