"""Library of the companion repository: hardware, arithmetic, engines, load, measurement, records, plots."""

__version__ = "0.1.0"
