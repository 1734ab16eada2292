"""All cases. Each file is about one subject; importing it puts its cases on the list."""

from . import failures, flags, requests, responses, routing, streams, tls, websockets  # noqa: F401
