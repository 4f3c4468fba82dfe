"""`python -m inferlab …`: the command line without `./lab`, for hosts with an own environment."""

from inferlab.cli import main

main()
