"""CAs: internal ones, imported ones, and the one of the server's own TLS certificate."""

from kms.pki.ca.cross import AlternateChain as AlternateChain
from kms.pki.ca.cross import check_cross as check_cross
from kms.pki.ca.errors import InvalidAuthority as InvalidAuthority
from kms.pki.ca.imported import check_imported as check_imported
from kms.pki.ca.imported import load_remote_signer as load_remote_signer
from kms.pki.ca.imported import load_signer as load_signer
from kms.pki.ca.internal import AuthorityTemplate as AuthorityTemplate
from kms.pki.ca.internal import NameConstraints as NameConstraints
from kms.pki.ca.internal import chain_to_root_pem as chain_to_root_pem
from kms.pki.ca.internal import intermediate as intermediate
from kms.pki.ca.internal import matches_template as matches_template
from kms.pki.ca.internal import remaining_path_length as remaining_path_length
from kms.pki.ca.internal import renewal_time as renewal_time
from kms.pki.ca.internal import self_signed as self_signed
from kms.pki.ca.internal import subject_key_id as subject_key_id
from kms.pki.ca.internal import trust_anchor_pem as trust_anchor_pem
from kms.pki.ca.roots import MAXIMUM_FORMER as MAXIMUM_FORMER
from kms.pki.ca.roots import Anchors as Anchors
from kms.pki.ca.roots import ReplacedRoot as ReplacedRoot
from kms.pki.ca.roots import anchors as anchors
from kms.pki.ca.roots import former_roots as former_roots
from kms.pki.ca.roots import root_pem as root_pem
from kms.pki.ca.serving import serving_authority as serving_authority
from kms.pki.ca.serving import serving_certificate as serving_certificate
from kms.pki.ca.trust_anchors import TrustAnchors as TrustAnchors
from kms.pki.ca.trust_anchors import check_trust_anchors as check_trust_anchors
