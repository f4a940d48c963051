"""One pure reconciler for each kind: a snapshot in, a plan out.

certificate_authority   signing keys and status of CAs
external_authority      external CAs, from looks at their issuers
external_contents       what of a profile such a CA cannot apply
internal_authority      keys of internal CAs, their certificates and renewal
requested_authority     CAs that somebody else certifies by request
subordinate_authority   CAs that an external one certifies
waiting_authority       their key and request, until the certificate comes
authority_limits        duration and usages that a CA limits
issuer_cycles           CAs that wait for each other
stored_keys             keys of internal CAs in key stores
earlier_authorities     deleted CAs of the same name, and former keys
certificate_policy      checks the rules
certificate_profile     checks references, writes the directory Secret
issuer_change           what clients trust while a profile moves to another CA
served_profiles         what proves the roots of CAs and of their profiles
certmanager_issuers     issuers of cert-manager, part of the plan of a profile
rules_without_effect    reports rules that allow nothing
client_namespaces       reports what profiles allow namespaces
eab_credential          EAB keys and their copies for the server
eab_admission           which credentials get a key
eab_copies              the server's copies of EAB keys
eab_keys                form of EAB keys
trust_distribution      published roots
notifications           keys of receivers, and how delivery goes
placement               objects in several namespaces, for issuers and roots
installation            nonce key and serving certificate
orphans                 keeps keys whose owner is gone for a time, and deletes the rest
kept_keys               how long such keys are kept, and for whom
"""
