"""Issuing CAs: sign certificates and revocation lists with the key of a CertificateAuthority."""

from kms.issuers.base import Issued as Issued
from kms.issuers.base import Issuer as Issuer
from kms.issuers.base import IssuerNotReady as IssuerNotReady
from kms.issuers.cache import Issuers as Issuers
from kms.issuers.key_stores import KeyStores as KeyStores
from kms.issuers.secret import SecretIssuer as SecretIssuer
