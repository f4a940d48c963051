"""Accounts, orders and revocations that this replica knows: the store, its cache, and indexes that the watch updates.

store                 reads and writes accounts and orders; applies transitions
cache                 the bounded cache of the store, and shared reads
refusals              tells people what the API server refuses
notices               which Events follow from refusals and failures
event_recorder        writes Events, within bounds
index                 the newest version of every object, for the views below
full_sync             lists all objects into the index, at the start and after a gap in the watch
certificates          view: a record of each certificate
authorizations        view: valid authorizations of accounts
expiry                counts what ends when, for metrics
suspensions           view: accounts that administrators suspend, for the audit stream
account_keys          view: keys of accounts
revocation_records    view: RevocationRecords, which outlive accounts and orders
revocation_recorder   writes them
certificate_chains    stores the chains of certificates once, and completes certificates with them
chain_rules           when an order refers to a chain, and how long chains are kept
needed_chains         the chains to which orders refer, for garbage collection
quotas                views: numbers and sizes of objects and of open orders, and their limits
write_rate            what is written in ten minutes, and its limit
weight                what objects take in etcd and in memory
turns                 requests of one account that wait for each other
retention             how long orders and accounts are kept
deleted_profiles      profiles that were deleted while accounts and orders of them are kept
garbage_collector     deletes what is no longer needed
"""
