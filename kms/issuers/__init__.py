"""Issuing CAs: one module a type, behind one protocol."""

from kms.issuers.protocol import Issued as Issued
from kms.issuers.protocol import Issuer as Issuer
from kms.issuers.protocol import IssuerNotReady as IssuerNotReady
from kms.issuers.registry import Issuers as Issuers
from kms.issuers.secret import SecretIssuer as SecretIssuer
from kms.issuers.secret import SigningKeys as SigningKeys
