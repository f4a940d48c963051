"""An installation and its configuration looked over: what is wrong, why it matters, and what to do."""

from kms_acme.doctor.checks import examine as examine
from kms_acme.doctor.findings import Finding as Finding
from kms_acme.doctor.findings import Level as Level
from kms_acme.doctor.snapshot import Snapshot as Snapshot
