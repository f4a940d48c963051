"""Orders (RFC 8555, 7.4): from new-order to the certificate.

service                what the API calls: create, read, respond to challenges, finalize
new_order              newOrder and newAuthz: every check before an order is stored
admission              whether an account may order names and dates; `kms-acme policy test` asks the same
policy                 which names and requests the policy allows, and which challenges can prove a name
identifiers            identifiers of ACME as names
lifetimes              dates and lifetimes of orders, authorizations and certificates
authorization_reuse    names that need no new challenge
replacement            orders that replace a certificate (RFC 9773)
spec_admission         checks what the spec of an order claims, before a certificate is made
validation_results     stores the results of challenges
caa                    CAA checks after a challenge and before issuance
finalize               accepts the CSR and issues the certificate
issuance_admission     whether a certificate may be issued now: asked at finalize, and again before it is stored
certificate_storage    stores the certificate in its order, with a reference to its chain or with all of it
certificate_template   the contents of the certificate
external_issuance      certificates from CAs that take time: asks, waits, stores
submission, claims     what such a CA is asked, and by which process
waiting, turns         the orders that wait on this replica, and who may ask the CA
issuing_chains         which CAs issue below the trust anchors of external CAs
release                what is checked before a certificate is stored
request_sweep          deletes requests that no order waits for
issuance_waiting       what answers of CAs that take time mean, and the transitions that follow
transitions            the state machine of orders, authorizations and challenges
recovery               continues the work of servers that died
cancellation           ends the orders of deactivated accounts
"""
