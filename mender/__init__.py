"""Training and evaluation of models on benchmarks, and the command line.

This is the only package that imports `modeling_mender`, `preference_benchmark` and the metric, which are independent of
each other. The examples and the command `mender` use the functions here.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
