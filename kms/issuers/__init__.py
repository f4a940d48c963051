"""Issuing CAs: sign certificates and revocation lists with the key of a CertificateAuthority."""

from kms.issuers.base import Issued as Issued
from kms.issuers.base import IssuerNotReady as IssuerNotReady
from kms.issuers.cache import Issuers as Issuers
from kms.issuers.secret import Issuer as Issuer
