"""Models are ready before threads share them: the operator decodes in kopf's thread and in its own."""

from __future__ import annotations

import subprocess
import sys

_DECODE_IN_EIGHT_THREADS = """
import json
import sys
import threading

from kms.cluster.codec import convert, decode
from kms.cluster.errors import Undecodable
from kms.resources import kinds

KINDS = [each for each in vars(kinds).values() if isinstance(each, kinds.Kind)]
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}
BODY = {"metadata": {"name": "a", "namespace": "b", "ownerReferences": [OWNER]}, "spec": {}, "status": {}}
STARTED = threading.Barrier(8)


def work(decoded):
    STARTED.wait()
    for kind in KINDS:
        try:
            decode(kind, json.dumps(BODY).encode()) if decoded else convert(kind, BODY)
        except Undecodable:
            pass


sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=work, args=(bool(each % 2),)) for each in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(len(KINDS))
"""


def test_threads_that_decode_a_model_for_the_first_time_at_once_do_not_crash() -> None:
    """Before models were prepared, each of six runs ended with SIGSEGV."""
    done = subprocess.run(
        [sys.executable, "-c", _DECODE_IN_EIGHT_THREADS], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 10
