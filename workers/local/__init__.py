"""An evaluation here and now, without a hub: `evalyard evaluate`, `prepare`, `infer` and `score`."""
