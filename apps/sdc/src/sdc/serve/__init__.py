"""A page and the web UI's HTTP API on this machine: ``http`` over ``app``, ``api`` over ``studio``."""
