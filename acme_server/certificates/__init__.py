"""Issued certificates: revocation, CRLs, renewal information and chains."""
