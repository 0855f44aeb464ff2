"""Recommendations over HTTP: `mender serve` on one machine, the same application on Ray Serve.

`collector` answers requests together that arrive together, `service` holds the model that serves and swaps it,
`bodies` reads JSON under limits, `app` is the HTTP application, `process` runs it until a signal.
"""

from __future__ import annotations
