"""Accounts (RFC 8555, 7.3): opening, updating, key rollover, external account binding.

service              the operations on accounts
new_account          newAccount: finds the account of a key, or opens one
eab_credentials      external account bindings, and what the credential of an account allows
client_namespaces    what the owner of a profile allows the clients of a namespace
credential_records   what an account keeps of its credential
record_keeper        writes these records when a credential changes or goes
slots                how many accounts a credential may open
terms                agreement to terms of service
contacts             contact URLs
key_claims           which account a key belongs to
key_rollover         key change
transitions          the state machine of accounts
"""
