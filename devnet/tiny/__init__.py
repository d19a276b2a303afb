"""candor-tiny: a byte-level Llama of two layers, small enough to ship (model/) and to train in minutes (train.py)."""
