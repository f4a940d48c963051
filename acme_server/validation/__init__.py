"""How control of an identifier is proven: challenges, the guarded network, the worker."""
