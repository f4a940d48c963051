"""Issued certificates: revocation, CRLs, renewal information and chains.

revocation            who may revoke a certificate, and the revocation
propagation           tells external CAs of revocations, or their administrators
revocation_reasons    allowed reasons; dates, number and entries of a CRL
crl                   signs and keeps the CRLs
serving_authority     list and certificate of the CA of the server's own certificate
deleted_authorities   CAs that were deleted while their lists go on
renewal_info          renewal information (RFC 9773)
renewal_window        when a certificate should be renewed
chains                the default chain and alternates
"""
