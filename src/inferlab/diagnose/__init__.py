"""Environment checks: is this machine ready for the labs, and if not, what to do."""
