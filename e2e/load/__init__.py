"""The load tool: drives an ACME server with its own client and measures the cost of an order."""
