"""Validation of challenges: the validators, their network access, and the worker that runs them.

worker                     validations in the background, and when their results are stored
batch                      the validations of one order
attempt                    one validation: attempts, pauses, outcome
shares                     who may queue validations
http01, dns01, tlsalpn01   the validators
tlsalpn01_certificate      the certificate of a tls-alpn-01 responder
caa_lookup, caa_rules      CAA records and what they forbid
dns                        lookups at the configured DNS servers
net                        guarded connections
"""
