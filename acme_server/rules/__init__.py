"""The protocol's rules as pure functions over immutable values: no I/O, no clock, nothing awaited."""
