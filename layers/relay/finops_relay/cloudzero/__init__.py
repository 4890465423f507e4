"""CloudZero: one client over two contracts; `connect.connect` makes a client."""
