"""Clients that read their configuration from a file."""

from __future__ import annotations

import base64

from kms.enrollment_guide.facts import Enrollment, Step, assign_key, save_authority

_APACHE_KEY = "/etc/apache2/kms-acme-eab.json"


def caddy(facts: Enrollment) -> tuple[Step, ...]:
    """A Caddyfile. Caddy answers http-01 and tls-alpn-01 by itself."""
    facts.challenge("Caddy", ("http-01", "tls-alpn-01"))
    lines = ["{", f"\tacme_ca {facts.directory_url}", f"\temail {facts.email}"]
    if facts.authority:
        lines.append(f"\tacme_ca_root {facts.authority_file}")
    if facts.is_bound:
        key = facts.key or "{$SECRET}"
        lines += ["\tacme_eab {", f"\t\tkey_id {facts.key_id}", f"\t\tmac_key {key}", "\t}"]
    lines += ["}", "", f"{', '.join(facts.names)} {{", '\trespond "Hello from Caddy"', "}"]
    return (
        *save_authority(facts),
        Step("Save the Caddyfile, with what your sites serve.", _text(lines), "caddyfile", "Caddyfile"),
        Step(
            "Start Caddy, which obtains and renews the certificate.", _with_key(facts, "caddy run --config Caddyfile")
        ),
    )


def apache(facts: Enrollment) -> tuple[Step, ...]:
    """mod_md of Apache 2.4.55 or newer. It reads the key from a file where the guide does not contain it."""
    challenge = facts.challenge("Apache", ("http-01", "tls-alpn-01", "dns-01"))
    lines = [f"MDCertificateAuthority {facts.directory_url}"]
    if facts.authority:
        lines.append(f"MDCACertificateFile {facts.authority_file}")
    is_referred = facts.is_bound and facts.key is None
    if facts.is_bound:
        lines.append(f"MDExternalAccountBinding {_APACHE_KEY if is_referred else f'{facts.key_id} {facts.key}'}")
    if challenge == "dns-01":
        lines.append("MDChallengeDns01 /usr/local/bin/set-txt")
    lines += ["MDCertificateAgreement accepted", f"MDContactEmail {facts.email}", f"MDomain {' '.join(facts.names)}"]
    binding = f'{{"kid": "{facts.key_id}", "hmac": "%s"}}'
    save_key = f"{assign_key(facts)}\n(umask 077; printf '{binding}' \"$SECRET\" >{_APACHE_KEY})\n"
    return (
        *save_authority(facts),
        *((Step("Save the credential where only root can read it.", save_key),) if is_referred else ()),
        Step(
            "Add this outside any <VirtualHost>; the site itself needs SSLEngine on and no certificate.",
            _text(lines),
            "apache",
            "/etc/apache2/conf-enabled/kms-acme.conf",
        ),
        Step("Restart Apache now, and once more when mod_md logs that it has the certificate.", "apachectl graceful\n"),
    )


def ansible(facts: Enrollment) -> tuple[Step, ...]:
    """A playbook with modules of community.crypto. It uses the web server of the host."""
    challenge = facts.challenge("ansible", ("http-01",))
    name = facts.names[0]
    folder = "/etc/ssl/private"
    common = (
        f"        acme_version: 2\n        acme_directory: {facts.directory_url}\n"
        f"        account_key_src: {folder}/acme-account.key\n"
    )
    key = f'"{facts.key}"' if facts.key else "\"{{ lookup('ansible.builtin.env', 'SECRET') }}\""
    binding = (
        "        external_account_binding:\n"
        f"          kid: {facts.key_id}\n          alg: HS256\n          key: {key}\n"
    )
    certificate = (
        common
        + "        modify_account: false\n"
        + f'        csr_content: "{{{{ request.csr }}}}"\n        dest: {folder}/{name}.crt\n'
        + f"        fullchain_dest: {folder}/{name}.pem\n        challenge: {challenge}\n"
        + f"        remaining_days: {facts.renewal_days}\n"
    )
    playbook = (
        f"- hosts: {name}\n  become: true\n"
        + (f"  environment:\n    SSL_CERT_FILE: {facts.authority_file}\n" if facts.authority else "")
        + "  tasks:\n"
        + "".join(
            f"    - community.crypto.openssl_privatekey:\n        path: {folder}/{file}\n"
            "        type: ECC\n        curve: secp256r1\n"
            for file in ("acme-account.key", f"{name}.key")
        )
        + "    - community.crypto.acme_account:\n"
        + common
        + f'        state: present\n        terms_agreed: true\n        contact: ["mailto:{facts.email}"]\n'
        + (binding if facts.is_bound else "")
        + "    - community.crypto.openssl_csr_pipe:\n"
        + f"        privatekey_path: {folder}/{name}.key\n"
        + "".join(["        subject_alt_name:\n", *(f"          - DNS:{each}\n" for each in facts.names)])
        + "      register: request\n"
        + "    - community.crypto.acme_certificate:\n"
        + certificate
        + "      register: order\n"
        + "    - ansible.builtin.file:\n"
        + "        path: /var/www/html/.well-known/acme-challenge\n        state: directory\n"
        + "    - ansible.builtin.copy:\n"
        + f"        dest: \"/var/www/html/{{{{ item.value['{challenge}'].resource }}}}\"\n"
        + f"        content: \"{{{{ item.value['{challenge}'].resource_value }}}}\"\n"
        + '      loop: "{{ (order.challenge_data | default({}, true)) | dict2items }}"\n'
        + "    - community.crypto.acme_certificate:\n"
        + certificate
        + '        data: "{{ order }}"\n'
        + "      when: order is changed\n"
    )
    return (
        *save_authority(facts),
        Step(
            "Save the playbook. The host needs the CA at the same path, and a web server for /var/www/html.",
            playbook,
            "yaml",
            "kms-acme.yaml",
        ),
        Step("Run it, and again for each renewal.", _with_key(facts, "ansible-playbook kms-acme.yaml")),
    )


def cert_manager(facts: Enrollment) -> tuple[Step, ...]:
    """An Issuer, which reads the HMAC key from the Secret of the credential beside it."""
    challenge = facts.challenge("cert-manager", ("http-01", "dns-01"))
    namespace = facts.credential.namespace if facts.credential is not None else "default"
    lines = [
        "apiVersion: cert-manager.io/v1",
        "kind: Issuer",
        "metadata:",
        "  name: kms-acme",
        f"  namespace: {namespace}",
        "spec:",
        "  acme:",
        f"    server: {facts.directory_url}",
        f"    email: {facts.email}",
        "    privateKeySecretRef:",
        "      name: kms-acme-account",
    ]
    if facts.authority:
        lines.append(f"    caBundle: {base64.b64encode(facts.authority.encode()).decode()}")
    if facts.is_bound:
        secret = facts.credential.secret_name if facts.credential is not None else "SECRET-OF-YOUR-CREDENTIAL"
        lines += [
            "    externalAccountBinding:",
            f"      keyID: {facts.key_id}",
            "      keySecretRef:",
            f"        name: {secret}",
            "        key: secret",
        ]
    lines.append("    solvers:")
    if challenge == "http-01":
        lines += ["      - http01:", "          ingress:", "            ingressClassName: nginx"]
    else:
        lines += ["      - dns01:", "          rfc2136:", "            nameserver: 10.0.0.53:53"]
    lines += [
        "---",
        "apiVersion: cert-manager.io/v1",
        "kind: Certificate",
        "metadata:",
        "  name: kms-acme-example",
        f"  namespace: {namespace}",
        "spec:",
        "  secretName: kms-acme-example-tls",
        "  dnsNames:",
        *(f'    - "{each}"' for each in facts.names),
        "  issuerRef:",
        "    name: kms-acme",
    ]
    return (
        Step(
            "Save the Issuer and a Certificate, with the solver that your cluster has.",
            _text(lines),
            "yaml",
            "issuer.yaml",
        ),
        Step("Create them. cert-manager renews the certificate by itself.", "kubectl apply -f issuer.yaml\n"),
    )


def _with_key(facts: Enrollment, command: str) -> str:
    """The command, with SECRET in its environment where the file refers to it."""
    if facts.is_bound and facts.key is None:
        return f"{assign_key(facts)}\nexport SECRET\n{command}\n"
    return f"{command}\n"


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
