"""The audit stream: one JSON line for each decision, in a form with a version (docs/audit.schema.json).

record          the lines: their members, their bounds, their encoding
actor           who asks: the client of the request that is being answered
decisions       what a change of an account, order or record decides; pure
stream          writes the lines
log             the logger of the same events, where there is no stream
configuration   changes that administrators make to configuration and accounts
"""
