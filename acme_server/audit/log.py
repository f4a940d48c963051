"""The logger of decisions, for people: the same events as lines of the audit stream, in short.

Where there is an audit stream, the process keeps them out of the log, so that nothing is written twice.
"""

from __future__ import annotations

import logging

decisions = logging.getLogger("acme_server.decisions")
