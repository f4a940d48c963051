"""Keys of CAs outside of Secrets: where they are, how they are found, made and used.

base           what a key store answers, and its errors
pkcs11_tokens  keys in PKCS #11 tokens
transit        keys of the transit secrets engine of Vault and OpenBao
stores         the key stores of one process
"""

from kms.issuers.key_stores.base import KeyLocation as KeyLocation
from kms.issuers.key_stores.base import KeyStoreNotReady as KeyStoreNotReady
from kms.issuers.key_stores.base import KeyStoreRefused as KeyStoreRefused
from kms.issuers.key_stores.base import StoredKey as StoredKey
from kms.issuers.key_stores.stores import KeyStores as KeyStores
