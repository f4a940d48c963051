"""The kernel that operator and server stand on: resources, cluster access, PKI, issuers."""
