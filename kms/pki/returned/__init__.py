"""What another CA returns for a request: a claim, checked before it is stored, and stored before it is handed out.

check      the checks in their order, and their result
base       what is expected, and why a certificate is rejected
form       PEM and DER
leaf       contents and dates of the end entity's certificate
path       the chain up to a trust anchor
authority  the chain of the CA itself, as its server tells it
"""

from kms.pki.returned.authority import authority_chain as authority_chain
from kms.pki.returned.authority import issuing_chain as issuing_chain
from kms.pki.returned.base import Expected as Expected
from kms.pki.returned.base import Rejected as Rejected
from kms.pki.returned.base import Rule as Rule
from kms.pki.returned.check import ReturnedCertificate as ReturnedCertificate
from kms.pki.returned.check import check_returned as check_returned
from kms.pki.returned.form import read_certificates as read_certificates
