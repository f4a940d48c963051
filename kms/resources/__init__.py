"""Typed models of our eight kinds and of the built-in kinds that we use: the only place with names of fields."""

from kms.resources.accounts import ACMEAccount as ACMEAccount
from kms.resources.authorities import CertificateAuthority as CertificateAuthority
from kms.resources.core import Secret as Secret
from kms.resources.credentials import EABCredential as EABCredential
from kms.resources.kinds import Kind as Kind
from kms.resources.orders import ACMEOrder as ACMEOrder
from kms.resources.policies import CertificatePolicy as CertificatePolicy
from kms.resources.profiles import CertificateProfile as CertificateProfile
from kms.resources.revocations import RevocationRecord as RevocationRecord
