"""What this replica knows of accounts and orders: the store, its cache, and indexes kept by the watch."""
