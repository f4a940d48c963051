"""A team uses certbot 1.21, as distributions with long support have it. Its certificate requests have version 3."""

from __future__ import annotations

from e2e.stories.clients import Certbot, key_in, names_in, succeeded
from e2e.stories.story import Credential, Story


def test_one_command_obtains_a_certificate_and_another_one_renews_it(
    certbot_1_21: Certbot, story: Story, credential: Credential
) -> None:
    names = [story.name(label) for label in ("old", "other-old")]
    succeeded(certbot_1_21.certonly(*names, credential=credential))
    before = certbot_1_21.file(names[0]).read_bytes()
    assert names_in(certbot_1_21.file(names[0])) == set(names)
    succeeded(certbot_1_21.renew("--force-renewal", "--key-type=ecdsa"))
    assert certbot_1_21.file(names[0]).read_bytes() != before
    assert names_in(certbot_1_21.file(names[0])) == set(names)
    assert key_in(certbot_1_21.file(names[0])) == "ECDSA-P256"
