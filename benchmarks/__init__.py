"""Measurements, run by hand; none of them is a test."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler, which counts bytes, says nothing else
