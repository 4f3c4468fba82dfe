"""From samples to statements: percentiles, intervals, comparisons, goodput, shares of the limit."""
