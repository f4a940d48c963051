"""What clients must trust to talk to the server, read from the Secrets of `reconcilers.installation`."""

from __future__ import annotations

from kms.resources.secret_names import CA_CERTIFICATE, TLS_CERTIFICATE
from kms_operator.snapshot import Snapshot, is_managed


def trust_anchor(snapshot: Snapshot) -> bytes | None:
    """The PEM that goes into `ca.crt` for users.

    Where somebody else supplies the serving certificate, what its Secret says (cert-manager writes `ca.crt`); else our
    own serving CA. None while there is neither.
    """
    serving = snapshot.internal(snapshot.settings.serving_secret)
    if serving is not None and not is_managed(serving):
        return serving.data.get(CA_CERTIFICATE)
    authority = snapshot.internal(snapshot.settings.serving_authority)
    return authority.data.get(TLS_CERTIFICATE) if authority else None
