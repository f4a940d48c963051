"""Clients that are told everything on their command line."""

from __future__ import annotations

import shlex
from dataclasses import replace

from kms.enrollment_guide.facts import Enrollment, Step, assign_values, save_authority

_WINDOWS_FILE = "ca.crt"


def certbot(facts: Enrollment) -> tuple[Step, ...]:
    """Certbot as a server of its own, or with a script that writes TXT records."""
    challenge = facts.challenge("certbot", ("http-01", "dns-01"))
    how = "--standalone" if challenge == "http-01" else _CERTBOT_DNS
    names = [f"--domain {shlex.quote(each)}" for each in facts.names]
    parts = [
        f"certbot certonly {how} --non-interactive --agree-tos --email {shlex.quote(facts.email)}",
        '--server "$DIRECTORY"',
    ]
    if facts.is_bound:
        parts.append('--eab-kid "$KID" --eab-hmac-key "$SECRET"')
    trust = f"export REQUESTS_CA_BUNDLE={shlex.quote(facts.authority_file)}\n" if facts.authority else ""
    return (
        *save_authority(facts),
        Step(
            "Obtain the certificate. certbot renews it by itself; its service needs REQUESTS_CA_BUNDLE, too.",
            assign_values(facts) + trust + _command(*parts, *names),
        ),
    )


_CERTBOT_DNS = "--manual --preferred-challenges dns --manual-auth-hook ./set-txt"


def lego(facts: Enrollment) -> tuple[Step, ...]:
    """Lego with a server of its own, or with a DNS server that takes updates (RFC 2136)."""
    challenge = facts.challenge("lego", ("http-01", "tls-alpn-01", "dns-01"))
    how = {"http-01": "--http", "tls-alpn-01": "--tls", "dns-01": "--dns rfc2136"}[challenge]
    parts = [f'lego --server "$DIRECTORY" --email {shlex.quote(facts.email)} --accept-tos']
    if facts.is_bound:
        parts.append('--eab --kid "$KID" --hmac "$SECRET"')
    parts.append(f"{how} {' '.join(f'--domains {shlex.quote(each)}' for each in facts.names)}")
    trust = f"export LEGO_CA_CERTIFICATES={shlex.quote(facts.authority_file)}\n" if facts.authority else ""
    return (
        *save_authority(facts),
        Step("Obtain the certificate.", assign_values(facts) + trust + _command(*parts, "run")),
        Step(
            "Renew it with the same options, for example daily.", _command(*parts, f"renew --days {facts.renewal_days}")
        ),
    )


def acme_sh(facts: Enrollment) -> tuple[Step, ...]:
    """acme.sh with a server of its own, or with nsupdate."""
    challenge = facts.challenge("acme.sh", ("http-01", "tls-alpn-01", "dns-01"))
    how = {"http-01": "--standalone", "tls-alpn-01": "--alpn", "dns-01": "--dns dns_nsupdate"}[challenge]
    trust = f" --ca-bundle {shlex.quote(facts.authority_file)}" if facts.authority else ""
    register = [f'acme.sh --register-account --server "$DIRECTORY"{trust} --email {shlex.quote(facts.email)}']
    if facts.is_bound:
        register.append('--eab-kid "$KID" --eab-hmac-key "$SECRET"')
    days = max(1, facts.duration.days - facts.renewal_days)
    names = " ".join(f"--domain {shlex.quote(each)}" for each in facts.names)
    return (
        *save_authority(facts),
        Step("Open an account.", assign_values(facts) + _command(*register)),
        Step(
            f"Obtain the certificate. acme.sh renews it after {days} days.",
            _command(f'acme.sh --issue --server "$DIRECTORY"{trust} {how} --days {days}', names),
        ),
    )


def uacme(facts: Enrollment) -> tuple[Step, ...]:
    """Uacme with the hook of its package, or with a script that writes TXT records."""
    challenge = facts.challenge("uacme", ("http-01", "dns-01"))
    hook = "/usr/share/uacme/uacme.sh" if challenge == "http-01" else "./set-txt"
    own = replace(facts, authority_file="/usr/local/share/ca-certificates/kms-acme.crt")
    trust = "update-ca-certificates\n" if facts.authority else ""
    binding = ' --eab "$KID:$SECRET"' if facts.is_bound else ""
    names = " ".join(shlex.quote(each) for each in facts.names)
    register = f'uacme --yes --acme-url "$DIRECTORY"{binding} new {shlex.quote(facts.email)}\n'
    issue = f'uacme --acme-url "$DIRECTORY" --hook {hook} --days {facts.renewal_days} issue {names}'
    return (
        *save_authority(own),
        Step(
            "Open an account. uacme trusts the CAs of the system.",
            trust + assign_values(facts) + register,
        ),
        Step("Obtain the certificate; repeat this daily, and uacme renews it in time.", issue + "\n"),
    )


def traefik(facts: Enrollment) -> tuple[Step, ...]:
    """Traefik, by the options of its static configuration."""
    challenge = facts.challenge("Traefik", ("http-01", "tls-alpn-01", "dns-01"))
    how = {
        "http-01": "httpchallenge.entrypoint=web",
        "tls-alpn-01": "tlschallenge=true",
        "dns-01": "dnschallenge.provider=rfc2136",
    }[challenge]
    resolver = "--certificatesresolvers.kms-acme.acme"
    parts = [
        "traefik --entrypoints.web.address=:80 --entrypoints.websecure.address=:443",
        f'{resolver}.caserver="$DIRECTORY" {resolver}.email={shlex.quote(facts.email)}',
        f"{resolver}.storage=acme.json {resolver}.{how}",
        f"{resolver}.certificatesduration={max(1, int(facts.duration.total_seconds() // 3600))}",
    ]
    if facts.is_bound:
        parts.append(f'{resolver}.eab.kid="$KID" {resolver}.eab.hmacencoded="$SECRET"')
    trust = f"export LEGO_CA_CERTIFICATES={shlex.quote(facts.authority_file)}\n" if facts.authority else ""
    return (
        *save_authority(facts),
        Step(
            "Start Traefik with a certificate resolver, beside the options that you have. Routers use it with"
            " tls.certResolver: kms-acme.",
            assign_values(facts) + trust + _command(*parts),
        ),
    )


def win_acme(facts: Enrollment) -> tuple[Step, ...]:
    """win-acme on Windows, whose certificate store decides about trust. There is no kubectl to read the key with."""
    challenge = facts.challenge("win-acme", ("http-01", "tls-alpn-01"))
    key = facts.key
    if key is None and facts.credential is not None:
        key = f"SECRET-OF-{facts.credential.namespace}/{facts.credential.secret_name}"
    parts = [
        f"wacs.exe --baseuri {facts.directory_url} --accepttos --emailaddress {facts.email}",
        f"--source manual --host '{','.join(facts.names)}'",  # without quotes, PowerShell passes one argument a name
        f"--validation selfhosting --validationmode {challenge}",
    ]
    if facts.is_bound:
        parts.append(f"--eab-key-identifier '{facts.key_id}' --eab-key '{key}'")
    trust = (
        "Import-Certificate -FilePath ca.crt -CertStoreLocation Cert:\\LocalMachine\\Root\n" if facts.authority else ""
    )
    days = max(1, facts.duration.days - facts.renewal_days)
    return (
        *save_authority(replace(facts, authority_file=_WINDOWS_FILE)),
        Step(
            "Obtain the certificate. So that it is renewed in time, set ScheduledTask.RenewalDays in settings.json to"
            f" {days}.",
            trust + " `\n  ".join(parts) + "\n",
            "powershell",
        ),
    )


def _command(*parts: str) -> str:
    return " \\\n  ".join(parts) + "\n"
