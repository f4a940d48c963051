"""Keys, requests, policy and certificates: pure, no I/O, no clock."""
