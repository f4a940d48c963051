"""One pure reconciler for each kind: a snapshot in, a plan out."""
