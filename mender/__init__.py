"""Where the packages meet: data into models, models onto the benchmark, and the command line over both.

The only package that imports `modeling_mender`, `preference_benchmark` and the metric together; none of them imports
another. Everything here is what the examples and the command `mender` are made of.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
