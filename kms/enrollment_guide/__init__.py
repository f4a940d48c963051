"""How to enroll with a profile: ready commands and configuration for each ACME client. Pure.

`kms-acme enroll` prints them as a script; pages show them step by step.
"""

from kms.enrollment_guide.facts import Credential as Credential
from kms.enrollment_guide.facts import Enrollment as Enrollment
from kms.enrollment_guide.facts import Guide as Guide
from kms.enrollment_guide.facts import NotSupported as NotSupported
from kms.enrollment_guide.facts import Step as Step
from kms.enrollment_guide.guides import CLIENTS as CLIENTS
from kms.enrollment_guide.guides import guide as guide
from kms.enrollment_guide.guides import guides as guides
from kms.enrollment_guide.script import script as script
