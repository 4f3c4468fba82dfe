"""`python -m inferlab …`: the command line without `./lab`, for hosts that bring their own environment."""

from inferlab.cli import main

main()
