"""CAs: those that we make, those that come from elsewhere, and the one of the server's own TLS."""

from kms.pki.authorities.cross import AlternateChain as AlternateChain
from kms.pki.authorities.cross import check_cross as check_cross
from kms.pki.authorities.errors import InvalidAuthority as InvalidAuthority
from kms.pki.authorities.imported import check_imported as check_imported
from kms.pki.authorities.imported import load_signer as load_signer
from kms.pki.authorities.made import AuthorityTemplate as AuthorityTemplate
from kms.pki.authorities.made import NameConstraints as NameConstraints
from kms.pki.authorities.made import chain_to_root_pem as chain_to_root_pem
from kms.pki.authorities.made import intermediate as intermediate
from kms.pki.authorities.made import is_as_wanted as is_as_wanted
from kms.pki.authorities.made import remaining_path_length as remaining_path_length
from kms.pki.authorities.made import renewal_time as renewal_time
from kms.pki.authorities.made import self_signed as self_signed
from kms.pki.authorities.made import subject_key_id as subject_key_id
from kms.pki.authorities.made import trust_anchor_pem as trust_anchor_pem
from kms.pki.authorities.serving import serving_authority as serving_authority
from kms.pki.authorities.serving import serving_certificate as serving_certificate
from kms.pki.authorities.trust import MAXIMUM_FORMER as MAXIMUM_FORMER
from kms.pki.authorities.trust import Anchors as Anchors
from kms.pki.authorities.trust import Former as Former
from kms.pki.authorities.trust import anchors as anchors
from kms.pki.authorities.trust import succeeded as succeeded
