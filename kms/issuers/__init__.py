"""Issuing CAs: one module a type, behind one protocol."""

from kms.issuers.base import Issued as Issued
from kms.issuers.base import Issuer as Issuer
from kms.issuers.base import IssuerNotReady as IssuerNotReady
from kms.issuers.cache import Issuers as Issuers
from kms.issuers.secret import SecretIssuer as SecretIssuer
from kms.issuers.secret import SigningKeys as SigningKeys
