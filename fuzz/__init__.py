"""Fuzzing of every parser of untrusted input.

For any input, a target must return, or raise one of its declared exceptions, within 50 ms of CPU time. Each file in
`fuzz/targets/` is a target, `fuzz/seeds.py` has its real inputs, and `fuzz/corpus/` has the inputs that earlier runs
found: those that broke a target, and those that reached new code.

`make fuzz MINUTES=10` searches for new inputs, guided by coverage. `make test` replays the known inputs and tries some
variations.
"""
