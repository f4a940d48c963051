"""What clients must trust to talk to the server, from the Secrets of `reconcilers.installation`."""

from __future__ import annotations

from kms.resources.secret_names import CA_CERTIFICATE, TLS_CERTIFICATE
from kms_operator.objects import is_managed
from kms_operator.snapshot import Snapshot


def trust_anchor(snapshot: Snapshot) -> bytes | None:
    """Return the PEM for users' `ca.crt`; None if there is none yet.

    If the operator did not make the serving certificate, that is `ca.crt` of its Secret (cert-manager writes it); else
    the operator's serving CA.
    """
    serving = snapshot.internal_secret(snapshot.settings.serving_secret)
    if serving is not None and not is_managed(serving):
        return serving.data.get(CA_CERTIFICATE)
    authority = snapshot.internal_secret(snapshot.settings.serving_authority)
    return authority.data.get(TLS_CERTIFICATE) if authority else None
