"""Why: the stories of orders, accounts, certificates and names, in sentences. Pure.

`kms-acme explain` prints them, and other views show the same text.
"""

from kms_acme.explain.account import explain_account as explain_account
from kms_acme.explain.name import explain_name as explain_name
from kms_acme.explain.order import explain_order as explain_order
from kms_acme.explain.story import Line as Line
from kms_acme.explain.story import Story as Story
from kms_acme.explain.story import told as told
