"""What the hardware can do and what it is doing: datasheet peaks, host identity, NVML and GPM
sampling."""
