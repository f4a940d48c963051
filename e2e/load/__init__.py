"""The load tool: drives an ACME server with a client of its own and says what an order costs."""
