"""The Kubernetes API: client, informers, conflicts and retries.

client                  typed calls: get, list, watch, create, replace, apply, delete
requests                paths, queries and bodies
transport               deadlines and connections
retry                   which requests are repeated, and when
errors                  the errors of all calls
codec                   JSON of objects, lists and watch events
unreadable              what is known of objects that do not fit their models
auth                    kubeconfig or ServiceAccount, and their tokens
service_account_token   tokens that the operator requests for the server
informer, indexer       a current copy of all objects of a kind, with indexes
change_feed             changes without a copy
progress                how far a watch has come, and waits for it
reflector               the loop of list and watch under both
list_all                all objects, page by page
watch_list              all objects, in one stream
leader_election         Leases
resource_version        which version is newer
metrics                 counters of calls
"""
