"""Fuzzing: every parser of bytes that strangers send, behind one small interface (SEC40, SEC41).

The contract of each target: whatever the bytes, it answers, or raises the refusal that its callers expect, and takes at
most 50 ms of CPU. `fuzz/targets/` has a target a file, `fuzz/seeds.py` the real inputs to begin with, and
`fuzz/corpus/` what has been found since: the inputs that once broke something, and those that reach far.

`make fuzz MINUTES=10` searches guided by coverage; `make test` replays all of it and tries some variations.
"""
