"""Keys and configuration of an installation in one encrypted file, and back.

`encryption` is the format of the file, `contents` what is in it, `collect` reads a cluster, `plan` decides what a
restore does, and `restore` does it.
"""
