"""What the scripts and the end-to-end tests share: finding, getting, starting and stopping the programs around Pointsman.

Only Python's standard library is used here, so that a fresh machine can run it.
"""
