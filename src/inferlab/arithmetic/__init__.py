"""From a model's `config.json` to parameters, bytes, FLOPs, KV cache and roofline times."""
