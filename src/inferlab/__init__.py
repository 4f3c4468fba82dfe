"""Library of the companion repository: from hardware and arithmetic to records and plots."""

__version__ = "0.1.0"
