"""The kernel of operator and server: resources, cluster access, PKI, issuers."""
